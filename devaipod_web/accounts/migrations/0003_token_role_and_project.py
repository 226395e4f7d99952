from django.db import migrations, models


class Migration(migrations.Migration):
    # A token that was there before keeps its person's role: the lesser of `manager` and that.

    dependencies = [
        ("accounts", "0002_failed_sign_in"),
        ("projects", "0001_initial"),
    ]

    operations = [
        migrations.AddField(
            model_name="apitoken",
            name="project",
            field=models.ForeignKey(
                blank=True,
                help_text="Empty: every project.",
                null=True,
                on_delete=models.deletion.CASCADE,
                related_name="tokens",
                to="projects.project",
            ),
        ),
        migrations.AddField(
            model_name="apitoken",
            name="role",
            field=models.CharField(
                default="manager", help_text="At most this role.", max_length=10
            ),
        ),
    ]
