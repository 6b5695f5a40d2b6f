"""Conversations as plain data: sessions, dialogs in files, and what is measured on them."""
