"""The CRMs' own APIs, as far as re-reading needs them: one file per vendor.

transport   credentials, rates, limits and errors, the same for all
grants      where what a CRM gave for a refresh token is kept, for all processes
base        what a client is asked, and what it gives
hubspot, salesforce, pipedrive, close   what each is asked, and how its pages follow each other
"""

from collections.abc import Mapping

from services.ingest.crms import close, hubspot, pipedrive, salesforce
from services.ingest.crms.base import Client

CLIENTS: Mapping[str, Client] = {
    "hubspot": hubspot.HubSpot(),
    "salesforce": salesforce.Salesforce(),
    "pipedrive": pipedrive.Pipedrive(),
    "close": close.Close(),
}
