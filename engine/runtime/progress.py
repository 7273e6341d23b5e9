"""What the process under construction is doing, for the message when it fails."""


class Progress:
    """The current step; cheap to move on."""

    def __init__(self) -> None:
        self.step = ""
        self.text = ""
        self.said = ""

    def at(self, step: str, text: str = "") -> None:
        """Begin the next step, done to `text`."""
        self.step = step
        self.text = text
        self.said = ""

    def say(self, message: str) -> None:
        """Remember what the kernel said about the failure that follows; empty: nothing."""
        self.said = message
