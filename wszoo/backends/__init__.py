"""Builders and runtimes: what turns a graph into a plan, and a plan into something that runs."""
