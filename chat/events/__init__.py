"""Deliver the events of an owner to every open connection of its clients."""
