"""The processing record that tilepipe leaves in its outputs: in the XMP of those that have one."""

from __future__ import annotations

import html
import json
import re
from contextlib import suppress
from typing import Any

from tilepipe.image.metadata.blocks import Metadata

__all__ = ["read_record", "with_record"]

NAMESPACE = "urn:tilepipe:xmp/1.0/"

DESCRIPTION = '<rdf:Description rdf:about="" xmlns:tilepipe="%s" tilepipe:Record="%s"/>'
"""Description with the record as a simple property (ISO 16684-1, 7.4 and 7.9.2.2)."""

PACKET = (
    b'<?xpacket begin="\xef\xbb\xbf" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
    b'<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"></rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
)
"""Packet without properties (ISO 16684-1, 7.3.2)."""

END = b"</rdf:RDF>"

RECORD = re.compile(rb'(tilepipe:Record=")([^"<]*)(?=")|(<tilepipe:Record>)([^<]*)(?=</)')
"""The record as an attribute, or as an element, to which other programs change it."""


def with_record(xmp: bytes | None, record: bytes) -> bytes | None:
    """Return an XMP packet with a processing record.

    Parameters
    ----------
    xmp : bytes, optional
        Packet of the input; the record of an earlier run in it is replaced.
    record : bytes
        Processing record, ASCII JSON; without one `xmp` is returned.

    Returns
    -------
    bytes or None
        `xmp` itself if it is no RDF in UTF-8 with the usual prefix.
    """
    if not record:
        return xmp
    value = html.escape(record.decode("ascii"))
    packet = xmp or PACKET
    if RECORD.search(packet):
        return RECORD.sub(lambda found: (found[1] or found[3]) + value.encode(), packet, count=1)
    before, end, after = packet.rpartition(END)
    return before + (DESCRIPTION % (NAMESPACE, value)).encode() + end + after if end else xmp


def read_record(metadata: Metadata) -> dict[str, Any] | None:
    """Return the processing record of a picture, in its XMP or where the format has it; None if it has none."""
    found = RECORD.search(metadata.xmp or b"")
    text = html.unescape((found[2] or found[4] or b"").decode("ascii", "replace")) if found else None
    record = None
    with suppress(ValueError):  # a property of that name which is no record
        record = json.loads(text or metadata.record or "null")
    return record if isinstance(record, dict) else None
