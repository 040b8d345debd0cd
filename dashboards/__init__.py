"""Shows the dashboards, declared once in conf/dashboards.yml, in Metabase and as static pages."""
