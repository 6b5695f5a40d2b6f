"""Conversations as plain data: sessions, dialogs in files, and code to measure recommenders."""
