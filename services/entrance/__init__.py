"""What a request passes before its route: its head, who is inside already, and how it closes."""
