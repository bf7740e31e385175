"""The XMP packet: the mark that the image is AI-made, what made it, and (JPEG, WebP) the record.

Only simple properties and one language alternative are used: SD.Next appends every bare `<rdf:li>` to the
prompt. Names: IPTC Photo Metadata 2025.1; XMP Specification part 1. `AIPromptWriterName` is left out: it is
a person's name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from pipeline.errors import ReadError

NAMESPACE = "urn:darkroom:image:1/"
"""Our own properties: `darkroom:metadata` (the record), `darkroom:id`, `darkroom:seed` and so on."""

DIGITAL_SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"

_NAMESPACES = {
    "Iptc4xmpExt": "http://iptc.org/std/Iptc4xmpExt/2008-02-29/",
    "xmp": "http://ns.adobe.com/xap/1.0/",
    "dc": "http://purl.org/dc/elements/1.1/",
    "darkroom": NAMESPACE,
}
EXIF = "http://ns.adobe.com/exif/1.0/"
_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_ILLEGAL_IN_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")

MARK: tuple[str, str] = ("Iptc4xmpExt:DigitalSourceType", DIGITAL_SOURCE_TYPE)
"""The one property that every image carries."""


def build_xmp(properties: Iterable[tuple[str, str]], description: str | None = None) -> bytes:
    """A packet with the mark, then `properties` as (`prefix:name`, text), then `dc:description`."""
    pairs = [MARK, *properties]
    used = {name.partition(":")[0] for name, _ in pairs} | ({"dc"} if description else set())
    spaces = "".join(f' xmlns:{prefix}="{uri}"' for prefix, uri in _NAMESPACES.items() if prefix in used)
    body = "".join(f"<{name}>{_xml(text)}</{name}>" for name, text in pairs)
    if description:
        item = f'<rdf:li xml:lang="x-default">{_xml(description)}</rdf:li>'
        body += f"<dc:description><rdf:Alt>{item}</rdf:Alt></dc:description>"
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
        f'<rdf:RDF xmlns:rdf="{_RDF}"><rdf:Description rdf:about=""{spaces}>{body}</rdf:Description>'
        '</rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
    ).encode()


def xml_safe_json(text: str) -> str:
    """JSON in which the two characters that JSON takes raw and XML does not are escaped; it parses the
    same.
    """
    return text.replace("\ufffe", "\\ufffe").replace("\uffff", "\\uffff")


def read_property(packet: bytes, name: str, namespace: str = NAMESPACE) -> str | None:
    """The text of a property, by default of ours, as an element or as an attribute; None where there is none.

    Raises `ReadError` on XML that is damaged or declares entities (a packet never does; an entity can
    expand to gigabytes).
    """
    if b"<!DOCTYPE" in packet or b"<!ENTITY" in packet:
        raise ReadError("its XMP packet declares entities, which is refused")
    if namespace.encode() not in packet:
        return None
    try:
        root = ElementTree.fromstring(packet.decode("utf-8-sig").strip("\x00\ufeff \r\n\t"))
    except (ElementTree.ParseError, UnicodeDecodeError) as error:
        raise ReadError(f"its XMP packet is damaged ({error})") from error
    qualified = f"{{{namespace}}}{name}"
    for description in root.iter(f"{{{_RDF}}}Description"):
        element = description.find(qualified)
        if element is not None:
            return "".join(element.itertext())
        if qualified in description.attrib:
            return description.attrib[qualified]
    return None


def _xml(text: str) -> str:
    return escape(_ILLEGAL_IN_XML.sub("\ufffd", text), {"\r": "&#13;"})
