"""What requests say and answers look like, in OpenAI's words."""
