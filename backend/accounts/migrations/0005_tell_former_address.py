from django.db import migrations, models


class Migration(migrations.Migration):
    """Changes nothing in the database, which knows no choices."""

    dependencies = [
        ("accounts", "0004_attempts_in_flight"),
    ]

    operations = [
        migrations.AlterField(
            model_name="outgoingmail",
            name="kind",
            field=models.CharField(
                choices=[
                    ("password_reset", "Password Reset"),
                    ("activation", "Activation"),
                    ("address_changed", "Address Changed"),
                ],
                max_length=20,
            ),
        ),
    ]
