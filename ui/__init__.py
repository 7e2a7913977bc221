"""The page: Gradio components for what a person enters, HTML from templates for what comes of it.

It reads the workspace on disk and starts jobs; it never loads torch, and keeps nothing that a reload would lose.
"""
