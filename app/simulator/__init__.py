"""The simulated worker: an OpenAI-compatible model server without a model, and a demo MCP server for it to talk about.

A request becomes tokens (`prompt`, `tokens`), a pure rule decides what is said (`rules`, `script`), the engine decides
when and what of the prompt was cached (`engine`, `cache`), and one file for each endpoint puts it on the wire.
"""
