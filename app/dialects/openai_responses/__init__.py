"""The Responses API as a dialect: requests in, items, events and response objects out. Pure translation, no I/O."""
