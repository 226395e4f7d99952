from django.db import migrations


def name_it(apps, schema_editor):
    """A run without a provider was a scripted demo: from now on its row says so."""
    apps.get_model("runs", "Run").objects.filter(provider=None, model="").update(
        model="scripted-demo"
    )


class Migration(migrations.Migration):
    dependencies = [("runs", "0002_pod_event_bytes")]
    operations = [migrations.RunPython(name_it, migrations.RunPython.noop)]
