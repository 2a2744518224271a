"""Links of Sphinx in docstrings, such as :class:`~a.b.Name`, as links of
Markdown."""
import re

import griffe

ROLE = re.compile(r':(?:func|class|meth|mod|attr|data):`(~?)([\w.]+)`')


class SphinxRoles(griffe.Extension):
    """A name that this package has becomes a link; any other one is code."""

    def on_package(self, *, pkg, loader, **kwargs):
        loader.resolve_aliases(implicit=False, external=False)
        self._visit(pkg, pkg)

    def _visit(self, thing, package):
        if thing.is_alias:
            return
        if thing.docstring:
            thing.docstring.value = ROLE.sub(
                lambda match: self._link(thing, package, *match.groups()),
                thing.docstring.value)
        for member in thing.members.values():
            self._visit(member, package)

    def _link(self, thing, package, tilde, name):
        shown = name.rpartition('.')[2] if tilde else name
        path = self._path(thing, package, name)
        return f'[`{shown}`][{path}]' if path else f'`{shown}`'

    def _path(self, thing, package, name):
        """The whole name of what a docstring names, or None."""
        if name.startswith(f'{package.path}.'):
            place = name
        else:
            try:
                place = thing.resolve(name.partition('.')[0])
            except griffe.NameResolutionError:
                return None
            place = '.'.join([place, *name.split('.')[1:]])
        if not place.startswith(f'{package.path}.'):
            return None
        try:
            found = package[place.partition('.')[2]]
            found = found.final_target if found.is_alias else found
        except (KeyError, griffe.GriffeError):
            return None
        return found.path if found.docstring and not any(
            part.startswith('_') for part in found.path.split('.')) else None
