"""The heart: a response as a state machine, what performs it, and the use-cases around it."""
