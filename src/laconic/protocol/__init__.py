"""The wire contract: topics, messages, chunking, manifests. Pure; specified in docs/spec/protocol.md."""
