"""A source of your own: mailboxes, one message a document, labelled with its X-Labels header."""

import mailbox
import os
from collections.abc import Iterator

from multihot import Document, InputFile, Reject


class Mailboxes:
    """It is pickled to the workers, so it holds nothing but its options."""

    def __init__(self, folder: str, header: str = "X-Labels"):
        self.folder = folder
        self.header = header

    def files(self) -> list[InputFile]:
        """What there is to read. Workers share these out, one `read` each."""
        names = sorted(name for name in os.listdir(self.folder) if name.endswith(".mbox"))
        paths = [os.path.join(self.folder, name) for name in names]
        return [InputFile(path, os.path.abspath(path), os.path.getsize(path)) for path in paths]

    def read(self, file: InputFile) -> Iterator[Document | Reject]:
        """Everything in one file, in its order. What cannot be used is a reject, never dropped."""
        for row, message in enumerate(mailbox.mbox(file.path), 1):
            if message.is_multipart():
                detail = "received a multipart message, expected plain text"
                yield Reject(file.name, row, "not plain text", detail, message.as_string())
                continue
            labels = [name.strip() for name in message.get(self.header, "").split(",")]
            yield Document(
                id=message.get("Message-ID", f"{file.name}:{row}"),
                texts=(f"{message.get('Subject', '')}\n\n{message.get_payload()}",),
                labels=tuple(filter(None, labels)),
                weight=1.0,
                source=file.name,
                row=row,
            )
