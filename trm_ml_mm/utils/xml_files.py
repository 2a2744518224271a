"""XML from a stranger: the one place that parses it."""
from typing import Union
from xml.etree import ElementTree


class _Builder(ElementTree.TreeBuilder):
    """Refuses a document type, before anything in it is read: only there can
    a file define entities, which grow without bound or read other files."""

    def doctype(self, name, pubid, system):
        raise ElementTree.ParseError(
            'it has a <!DOCTYPE>, which could define entities')


def parse_xml(content: Union[bytes, str]) -> ElementTree.Element:
    """The root element of an XML document; its encoding is as it says.

    Raises:
        ElementTree.ParseError: If it is not whole, or has a document type.
    """
    parser = ElementTree.XMLParser(target=_Builder())
    try:
        return ElementTree.fromstring(content, parser)
    except (ValueError, LookupError) as error:  # an unknown encoding
        raise ElementTree.ParseError(str(error)) from error
