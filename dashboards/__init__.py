"""The dashboards: declared once in conf/dashboards.yml, shown by Metabase and as static pages."""
