from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ("runs", "0006_run_token"),
    ]

    operations = [
        migrations.AddField(
            model_name="run",
            name="pause_cause",
            field=models.CharField(
                blank=True,
                choices=[("budget", "Budget"), ("loop", "Loop"), ("person", "Person")],
                help_text="Of a paused run alone.",
                max_length=6,
                default="",
            ),
            preserve_default=False,
        ),
        migrations.AddField(
            model_name="run",
            name="wall_left",
            field=models.PositiveIntegerField(
                blank=True,
                help_text="Seconds of its wall time that are left, while it is paused.",
                null=True,
            ),
        ),
        migrations.AddField(
            model_name="run",
            name="repeats",
            field=models.JSONField(
                blank=True,
                default=dict,
                help_text="What loop detection remembers (runs.repeats).",
            ),
        ),
    ]
