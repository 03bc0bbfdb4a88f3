"""What the four ways are worth on the user's own questions, and how sure that is."""
