"""Images: content, tags, loading, pulling."""
