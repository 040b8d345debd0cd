"""Lists the words that hospital systems use for what the datasets hold; drafts of declarations guess from them.

A dataset that is not listed here is guessed from the names of its own columns.
"""

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence

from jobs.dataset import Column, Dataset

# By dataset, what its files are called; by column, what the column is called. Words of four letters or more also count
# as a part of a longer one: Patientennummer, AUFENTHALTNR.
FILES: Mapping[str, str] = {
    "patients": "patient patients pat patienten patientes stammdaten person persons pac pacientes",
    "visits": "visit visits encounter encounters fall faelle sejour sejours sej venue contact appointment episodio",
    "admissions": "admission admissions stay stays aufenthalt aufenthalte hospitalisation ingreso inpatient encounters",
    "treatments": "treatment treatments procedure procedures leistung leistungen acte actes prestation tratamiento",
    "billing": "bill bills billing invoice invoices claim claims rechnung rechnungen facture factures factura fac",
}
COLUMNS: Mapping[str, str] = {
    "patient_id": "patient patientid patnr pid mrn dossier ipp patientennr paciente",
    "gender": "gender sex sexe geschlecht genre sexo",
    "birth_date": "birth birthdate dob geburtsdatum gebdat gebdatum naissance nacimiento",
    "city": "city town ort wohnort stadt ville commune ciudad",
    "registration_date": "registration registered created angelegt aufnahme crea creation inscription alta registro",
    "visit_id": "visit visitid encounter encounterid fall fallnr fallnummer sejour venue episode appointment nda",
    "visit_type": "visittype type class encounterclass fallart art kind modalite",
    "department": "department dept ward unit fachabteilung abteilung service unite uf specialty departamento",
    "doctor_id": "doctor physician provider arzt medecin practitioner medico",
    "visit_start_ts": "start started begin beginn from debut entree von inicio admit",
    "visit_end_ts": "stop end ended ende to fin sortie bis discharge",
    "status": "status state zustand etat statut estado",
    "admission_id": "admission admissionid stay aufenthalt aufenthaltnr hospitalisation ingreso",
    "admit_ts": "admit admitted admission start begin beginn von entree from entrada",
    "discharge_ts": "discharge discharged stop end ende bis sortie to salida",
    "room_type": "room roomtype class klasse zimmer chambre habitacion bed station",
    "treatment_id": "treatment treatmentid procedure leistung leistungnr acte prestation",
    "treatment_code": "code procedurecode ops ccam cpt",
    "treatment_name": "name description text bezeichnung libelle label descripcion",
    "treatment_cost": "cost price kosten preis cout montant tarif basecost amount coste",
    "performed_ts": "performed done start date erbracht execution realise datum fecha",
    "bill_id": "bill billid invoice claim rechnung rechnungnr facture factura",
    "total_amount": "total amount gesamt betrag montant totalclaimcost summe importe",
    "insurance_amount": "insurance insurer payer coverage payercoverage kasse versicherung caisse assurance seguro",
    "patient_amount": "patientamount copay selfpay eigenanteil reste patient share",
    "payment_status": "paymentstatus status stand zahlstatus etat",
    "payment_ts": "payment paid bezahlt zahlung paye paiement pago",
}
# What codes of listed values are short for, in lower case: the whole word, its first letters or its initials count.
CODES: Mapping[str, Mapping[str, str]] = {
    "gender": {
        "M": "1 male man maennlich masculin homme hombre h",
        "F": "2 female woman weiblich w feminin femme mujer",
        "Other": "3 other divers diverse x autre o",
        "Unknown": "0 9 unknown unbekannt inconnu u",
    },
    "visit_type": {
        "Outpatient": "outpatient ambulatory ambulant ambulatoire amb consultation wellness urgentcare virtual home",
        "Emergency": "emergency notfall urgence urgences er ed",
        "Inpatient": "inpatient stationaer stationary hospitalisation imp snf hospice",
    },
    "status": {
        "Completed": "completed finished done abgeschlossen termine closed",
        "Cancelled": "cancelled canceled storniert annule abgesagt",
        "No-show": "noshow no-show absent nichterschienen",
    },
    "room_type": {
        "General Ward": "general ward allgemein ak allgemeineklasse commune",
        "Semi-Private": "semi-private double zweibett zweibettzimmer zb",
        "Private": "private single einbett einbettzimmer eb einzelzimmer individuelle",
        "ICU": "icu intensive its intensivstation reanimation rea",
        "CCU": "ccu coronary kardiologischeintensiv usic",
    },
    "payment_status": {
        "Paid": "paid bezahlt paye closed settled beglichen",
        "Pending": "pending open offen billed impaye attente",
        "Partial": "partial part teilweise teilbezahlt partiel",
    },
}
# The value of every row if a file has no column for it.
USUAL = {"status": "Completed", "room_type": "General Ward", "payment_status": "Pending", "visit_type": "Outpatient"}
# Columns that tell who a patient is, or may: their values are on no page.
IDENTIFYING = re.compile(
    r"name|vorname|nachname|prenom|\bnom\b|first|last|middle|maiden|birth|geb|naiss|nacim|dob|ssn|social|passport|"
    r"driver|phone|tel|mobile|mail|address|adresse|street|strasse|\brue\b|zip|plz|postal|fips|\blat\b|\blon\b|insur.*id|"
    r"versichert|death|deces|note|comment|bemerk|freitext"
)


def words_of(name: str) -> list[str]:
    """Returns the words of a column's or file's name, in lower case and without accents."""
    plain = unicodedata.normalize("NFKD", name.replace("ß", "ss")).encode("ascii", "ignore").decode()
    split = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", plain)
    return [word for word in re.split(r"[^a-z]+", split.lower()) if word]


def likeness(name: str, own: str, terms: str) -> float:
    """Scores from 0 to 1 how well a name fits `own` or one of the terms."""
    words, known = words_of(name), terms.split()
    whole = "".join(words)
    if whole == "".join(words_of(own)):
        return 1.0
    if whole in known:
        return 0.9
    if any(word in known for word in words):
        return 0.75
    long = [word for word in known if len(word) > 3]
    return 0.55 if any(term in word for word in words for term in long) else 0.0


def of_column(name: str, column: Column) -> float:
    """Scores from 0 to 1 how well a name fits a column of a dataset."""
    return likeness(name, column.name, COLUMNS.get(column.name, ""))


def of_file(name: str, dataset: Dataset) -> float:
    """Scores from 0 to 1 how well a file's name fits this dataset."""
    return likeness(name, dataset.name, FILES.get(dataset.name, ""))


def decode(column: Column, codes: Sequence[str], least: float = 0.1) -> dict[str, str]:
    """Returns what codes of a listed column seem to mean; leaves out codes whose best score is below `least`."""
    found: dict[str, str] = {}
    for code in codes:
        plain = "".join(re.findall("[a-z0-9]+", "".join(words_of(code)) or code.lower()))
        ranked = sorted((score, value) for value in column.one_of for score in scores(column, value, plain))
        if ranked and ranked[-1][0] >= least:
            found[code] = ranked[-1][1]
    return found


def scores(column: Column, value: str, code: str) -> Iterator[float]:
    """Yields how well a code fits a value, for each word that systems use for the value."""
    words = [re.sub("[^a-z0-9]", "", value.lower()), *CODES.get(column.name, {}).get(value, "").split()]
    for place, word in enumerate(words):
        if code == word:
            yield 1.0
        elif len(code) > 2 and (word.startswith(code) or (code.startswith(word) and len(word) > 3)):
            yield 0.8
        elif code and word.startswith(code):
            yield 0.5 - 0.01 * place
