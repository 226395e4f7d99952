from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('llm', '0004_routes_and_prices'),
    ]

    operations = [
        migrations.AddField(
            model_name='llmcall',
            name='agent',
            field=models.CharField(blank=True, help_text='Of a run that is deleted.', max_length=40),
        ),
        migrations.AddIndex(
            model_name='llmcall',
            index=models.Index(fields=['at'], name='call_at'),
        ),
    ]
