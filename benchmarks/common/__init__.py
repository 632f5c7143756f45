"""Parts that all benchmark scripts share: records, timing, Markdown pages and plots."""
