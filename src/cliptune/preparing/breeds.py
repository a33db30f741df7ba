"""Class names: the 120 breeds of Stanford Dogs; choosing some of any source by name or number.

The dataset: Khosla, Jayadevaprakash, Yao and Fei-Fei, "Novel dataset for fine-grained image
categorization", 2011, http://vision.stanford.edu/aditya86/ImageNetDogs/. Its folders are called
`<WordNet id>-<breed>`.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Sequence

from cliptune.data.naming import clean_name
from cliptune.errors import DataError
from cliptune.text import counted

_DATASET_FOLDERS = """
n02085620-Chihuahua n02085782-Japanese_spaniel n02085936-Maltese_dog n02086079-Pekinese
n02086240-Shih-Tzu n02086646-Blenheim_spaniel n02086910-papillon n02087046-toy_terrier
n02087394-Rhodesian_ridgeback n02088094-Afghan_hound n02088238-basset n02088364-beagle
n02088466-bloodhound n02088632-bluetick n02089078-black-and-tan_coonhound
n02089867-Walker_hound n02089973-English_foxhound n02090379-redbone n02090622-borzoi
n02090721-Irish_wolfhound n02091032-Italian_greyhound n02091134-whippet
n02091244-Ibizan_hound n02091467-Norwegian_elkhound n02091635-otterhound n02091831-Saluki
n02092002-Scottish_deerhound n02092339-Weimaraner n02093256-Staffordshire_bullterrier
n02093428-American_Staffordshire_terrier n02093647-Bedlington_terrier
n02093754-Border_terrier n02093859-Kerry_blue_terrier n02093991-Irish_terrier
n02094114-Norfolk_terrier n02094258-Norwich_terrier n02094433-Yorkshire_terrier
n02095314-wire-haired_fox_terrier n02095570-Lakeland_terrier n02095889-Sealyham_terrier
n02096051-Airedale n02096177-cairn n02096294-Australian_terrier n02096437-Dandie_Dinmont
n02096585-Boston_bull n02097047-miniature_schnauzer n02097130-giant_schnauzer
n02097209-standard_schnauzer n02097298-Scotch_terrier n02097474-Tibetan_terrier
n02097658-silky_terrier n02098105-soft-coated_wheaten_terrier
n02098286-West_Highland_white_terrier n02098413-Lhasa n02099267-flat-coated_retriever
n02099429-curly-coated_retriever n02099601-golden_retriever n02099712-Labrador_retriever
n02099849-Chesapeake_Bay_retriever n02100236-German_short-haired_pointer n02100583-vizsla
n02100735-English_setter n02100877-Irish_setter n02101006-Gordon_setter
n02101388-Brittany_spaniel n02101556-clumber n02102040-English_springer
n02102177-Welsh_springer_spaniel n02102318-cocker_spaniel n02102480-Sussex_spaniel
n02102973-Irish_water_spaniel n02104029-kuvasz n02104365-schipperke n02105056-groenendael
n02105162-malinois n02105251-briard n02105412-kelpie n02105505-komondor
n02105641-Old_English_sheepdog n02105855-Shetland_sheepdog n02106030-collie
n02106166-Border_collie n02106382-Bouvier_des_Flandres n02106550-Rottweiler
n02106662-German_shepherd n02107142-Doberman n02107312-miniature_pinscher
n02107574-Greater_Swiss_Mountain_dog n02107683-Bernese_mountain_dog n02107908-Appenzeller
n02108000-EntleBucher n02108089-boxer n02108422-bull_mastiff n02108551-Tibetan_mastiff
n02108915-French_bulldog n02109047-Great_Dane n02109525-Saint_Bernard n02109961-Eskimo_dog
n02110063-malamute n02110185-Siberian_husky n02110627-affenpinscher n02110806-basenji
n02110958-pug n02111129-Leonberg n02111277-Newfoundland n02111500-Great_Pyrenees
n02111889-Samoyed n02112018-Pomeranian n02112137-chow n02112350-keeshond
n02112706-Brabancon_griffon n02113023-Pembroke n02113186-Cardigan n02113624-toy_poodle
n02113712-miniature_poodle n02113799-standard_poodle n02113978-Mexican_hairless
n02115641-dingo n02115913-dhole n02116738-African_hunting_dog
""".split()  # noqa: SIM905  (a list literal would take 120 lines)

DEFAULT_NUM_BREEDS = 10

# Well-known breeds that look unlike one another: a first run should be an easy one.
_FIRST = (
    "golden_retriever", "labrador", "german_shepherd", "beagle", "french_bulldog",
    "standard_poodle", "rottweiler", "siberian_husky", "chihuahua", "pug",
)  # fmt: skip


def _plain(name: str) -> str:
    """`name` in lower-case snake case, without a WordNet id in front."""
    name = re.sub(r"^n\d{8}-", "", clean_name(name))
    name = re.sub(r"[\s_-]+", "_", name).lower()
    return "labrador" if name == "labrador_retriever" else name


# The dataset's folder -> ours: "n02099601-golden_retriever" -> "golden_retriever".
BREED_OF_FOLDER: dict[str, str] = {folder: _plain(folder) for folder in _DATASET_FOLDERS}

# Our names of the 120 breeds, in the order in which they are taken.
BREEDS: tuple[str, ...] = (*_FIRST, *sorted(set(BREED_OF_FOLDER.values()) - set(_FIRST)))


def choose_classes(
    available: Sequence[str],
    *,
    classes: Sequence[str] | None,
    num_classes: int | None,
    where: str,
) -> tuple[str, ...]:
    """Those of `available` that are asked for: by name, else the first `num_classes`, else all.

    Names may be written in any case, with spaces, dashes or underscores, or as the dataset's own
    folder names. `where` names the place `available` comes from, for messages.

    Raises `DataError` for an unknown or repeated name, for fewer than two classes, for more than
    there are, and for a `num_classes` that is not the number of `classes`.
    """
    if classes is not None:
        chosen = find_classes(available, classes, option="--classes", where=where)
        if num_classes not in (None, len(chosen)):
            raise DataError(
                f"--num-classes {num_classes} beside --classes with "
                f"{counted(len(chosen), 'name')}. Leave one of the two out."
            )
    else:
        wanted = len(available) if num_classes is None else num_classes
        if len(available) >= 2 and not 2 <= wanted <= len(available):
            raise DataError(
                f"--num-classes {wanted}: expected 2 to {len(available)}, "
                f"the number of classes of {where}."
            )
        chosen = tuple(available[:wanted])
    if len(chosen) < 2:
        found = f"only one class ('{chosen[0]}')" if chosen else "no class"
        raise DataError(f"{where}: {found}. A classifier needs at least two.")
    return chosen


def find_classes(
    available: Sequence[str], classes: Sequence[str], *, option: str, where: str
) -> tuple[str, ...]:
    """Those of `available` that `classes` names, however spelt.

    Raises `DataError` for unknown names, with the nearest, and for a class named twice.
    """
    by_plain_name = {_plain(name): name for name in available}
    chosen, unknown = [], []
    for name in classes:
        match = name if name in available else by_plain_name.get(_plain(name))
        if match is None:
            near = difflib.get_close_matches(_plain(name), list(by_plain_name), n=3)
            hint = ", ".join(by_plain_name[key] for key in near)
            unknown.append(f"'{name}'" + (f" (nearest: {hint})" if near else ""))
        else:
            chosen.append(match)
    if unknown:
        shown = ", ".join(sorted(available)[:12]) + (", …" if len(available) > 12 else "")
        raise DataError(
            f"{option}: {where} has no class {', '.join(unknown)}. "
            f"Its {counted(len(available), 'class')}: {shown}."
        )
    repeated = [name for name, count in Counter(chosen).items() if count > 1]
    if repeated:
        raise DataError(f"{option}: named more than once: {', '.join(repeated)}.")
    return tuple(chosen)
