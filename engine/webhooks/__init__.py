"""Webhooks: who is told of events, what they are sent, and how it is sent until it arrives."""
