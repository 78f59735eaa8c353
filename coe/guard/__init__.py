"""What keeps experts up: state machines of their failures, their room, and what is tried again."""
