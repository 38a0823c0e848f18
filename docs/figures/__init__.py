"""The figures of the pages in docs/, a file a page; `python -m docs.figures` draws them."""
