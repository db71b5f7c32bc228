"""Pure translators between a client's or an engine's wire format and the vocabulary of `app.turn`."""
