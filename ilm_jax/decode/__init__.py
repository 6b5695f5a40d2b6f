"""Ranks items and generates text with the language model: trie, beam search, exact scores, text."""
