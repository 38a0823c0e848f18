"""Files written whole or not at all, and pickles read without executing anything."""

from .atomic import to_json, write_atomically

__all__ = ["to_json", "write_atomically"]
