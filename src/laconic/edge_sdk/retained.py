"""What training leaves on the device besides a frame to send."""

from __future__ import annotations

from laconic.compression import decode, no_residual
from laconic.compression.echo import NO_ECHO, Echo
from laconic.compression.feedback import Residual
from laconic.edge_sdk.records import EchoNote, Restored, note_of, save_private, save_vector
from laconic.edge_sdk.work import Outcome, settled
from laconic.protocol.messages import Folded
from laconic.schema import Schema, Vector


class Retained:
    """What the coordinator does not have yet, what it adds of itself, and what is for the learner alone."""

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self.residual = Residual(no_residual(schema.size))
        self.echo: Echo = NO_ECHO
        self.private = b""
        self._exact: tuple[bytes, Vector] | None = None
        """The last frame, and what it decodes to, where that is known."""

    def restore(self, saved: Restored) -> None:
        """Go on with what an earlier life has saved."""
        self.residual, self.echo, self.private = saved.residual, saved.echo, saved.private

    @property
    def echo_note(self) -> EchoNote | None:
        """Where the echo stands: it goes into the diary of the same write."""
        return note_of(self.echo)

    def learn(self, outcome: Outcome) -> None:
        """Training has ended."""
        self.residual, self.echo, self.private = outcome.residual, outcome.echo, outcome.private
        if outcome.frame is not None:
            self._exact = (outcome.frame, outcome.residual.values) if outcome.exact else None

    def settle(self, frame: bytes, folded: Folded | None) -> None:
        """`frame` has been committed: the coordinator has what it says. `folded`: None without an echo."""
        exact, self._exact = self._exact, None
        if exact is not None and exact[0] is frame:
            said = exact[1]
        else:
            said = decode(frame, self._schema, limit_bytes=4 * self._schema.size)
        self.residual, self.echo = settled(self.residual, self.echo, said, folded)

    def owed(self) -> dict[str, bytes | None]:
        """What the coordinator does not have, and what it adds: of one moment, so of one write.

        Where nothing is owed, nothing is written: that is how `restore` reads it.
        """
        values, echo = self.residual.values, self.echo.values
        return {
            "residual": None if values is no_residual(values.size) else save_vector(values),
            "echo": None if echo is None else save_vector(echo),
        }

    def learnt(self) -> dict[str, bytes | None]:
        """All that training changed."""
        private = save_private(self.private) if self.private else None
        return {**self.owed(), "private": private}
