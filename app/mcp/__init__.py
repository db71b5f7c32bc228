"""The MCP room: sessions with tool servers, and their answers in our vocabulary. What to call is decided elsewhere."""
