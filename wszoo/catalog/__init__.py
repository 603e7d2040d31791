"""The catalog: a store as pages for people.

:mod:`~wszoo.catalog.survey` reads the store, :mod:`~wszoo.catalog.sharing` finds what models have in common,
:mod:`~wszoo.catalog.detail` collects what a model's page shows, :mod:`~wszoo.catalog.pages` turns both into bytes.
Two ways out: :mod:`~wszoo.catalog.site` writes files, :mod:`~wszoo.catalog.live` answers requests. See docs/catalog.md.
"""
