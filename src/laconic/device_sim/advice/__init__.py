"""Whether federation is worth it for one's own data: `laconic sim advise`. See docs/advise.md."""
