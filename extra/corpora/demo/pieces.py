"""Which scores of music21's corpus make the demo corpus, and in which split: no work is in two of them.

A row a recording: the file in music21's corpus, the movement with its mark, the speed (quarter notes a minute, used
where the score names none: near the composer's metronome marks where there are any, else what is usually played) and
how many seconds of it are played. Recording ids start at 1001 (train), 2001 (valid) and 3001 (test).
"""

import dataclasses

SPLITS = ("train", "valid", "test")
QUARTET, PIANO, CLARINET = "String Quartet", "Solo Piano", "Clarinet and Piano"


@dataclasses.dataclass(frozen=True)
class Piece:
    """One recording to be made: excerpt of `seconds` from the beginning of `source`, played `times` times over."""

    key: str  # "id_1001"
    split: str
    source: str  # below music21/corpus
    composer: str
    composition: str
    movement: str
    ensemble: str
    quarter_bpm: float
    seconds: float
    times: int = 1  # 2: the repeat is played

    @property
    def name(self) -> str:
        return f"{self.key} ({self.composer}, {self.composition}, {self.movement})"


_BEETHOVEN, _MOZART, _HAYDN = "Beethoven", "Mozart", "Haydn"
_SCHUMANN, _WIECK = "Robert Schumann", "Clara Schumann"
_WORKS = {
    # split: ((directory, composer, composition, ensemble, ((file, movement, quarter notes a minute), ...)), ...)
    "train": (
        (
            "beethoven/opus18no1",
            _BEETHOVEN,
            "String Quartet in F major, Op. 18 No. 1",
            QUARTET,
            (
                ("movement1.mxl", "1. Allegro con brio", 160),
                ("movement2.mxl", "2. Adagio affettuoso ed appassionato", 69),
                ("movement3.mxl", "3. Scherzo: Allegro molto", 264),
                ("movement4.mxl", "4. Allegro", 112),
            ),
        ),
        (
            "beethoven/opus59no1",
            _BEETHOVEN,
            "String Quartet in F major, Op. 59 No. 1",
            QUARTET,
            (
                ("movement1.mxl", "1. Allegro", 152),
                ("movement2.mxl", "2. Allegretto vivace e sempre scherzando", 84),
                ("movement4.mxl", "4. Thème russe: Allegro", 120),
            ),
        ),
        (
            "beethoven/opus59no3",
            _BEETHOVEN,
            "String Quartet in C major, Op. 59 No. 3",
            QUARTET,
            (
                ("movement1.mxl", "1. Andante con moto - Allegro vivace", 84),
                ("movement3.mxl", "3. Menuetto grazioso", 116),
            ),
        ),
        (
            "mozart/k155",
            _MOZART,
            "String Quartet No. 2 in D major, K. 155",
            QUARTET,
            (
                ("movement1.mxl", "1. Allegro", 126),
                ("movement2.mxl", "2. Andante", 60),
                ("movement3.mxl", "3. Molto allegro", 132),
            ),
        ),
        (
            "mozart/k458",
            _MOZART,
            "String Quartet No. 17 in B-flat major, K. 458",
            QUARTET,
            (
                ("movement1.mxl", "1. Allegro vivace assai", 168),
                ("movement2.mxl", "2. Menuetto: Moderato", 112),
                ("movement3.mxl", "3. Adagio", 44),
                ("movement4.mxl", "4. Allegro assai", 144),
            ),
        ),
        (
            "haydn/opus74no1",
            _HAYDN,
            "String Quartet in C major, Op. 74 No. 1",
            QUARTET,
            (
                ("movement1.mxl", "1. Allegro moderato", 120),
                ("movement2.mxl", "2. Andantino grazioso", 58),
                ("movement3.mxl", "3. Menuetto: Allegro", 160),
                ("movement4.mxl", "4. Finale: Vivace", 144),
            ),
        ),
        (
            "schumann_robert/opus41no1",
            _SCHUMANN,
            "String Quartet in A minor, Op. 41 No. 1",
            QUARTET,
            (
                ("movement2.mxl", "2. Scherzo: Presto", 200),
                ("movement3.mxl", "2. Intermezzo", 120),
                ("movement4.mxl", "3. Adagio", 56),
            ),
        ),
        (
            "schumann_clara",
            _WIECK,
            "Quatre Polonaises, Op. 1",
            PIANO,
            (
                ("polonaise_op1n1.mxl", "1. Polonaise in E-flat major", 92),
                ("polonaise_op1n2.mxl", "2. Polonaise in C major", 92),
                ("polonaise_op1n3.mxl", "3. Polonaise in D major", 92),
                ("polonaise_op1n4.mxl", "4. Polonaise in C major", 92),
            ),
        ),
        (
            "chopin",
            "Chopin",
            "Mazurkas, Op. 6",
            PIANO,
            (("mazurka06-2.krn", "2. Mazurka in C-sharp minor", 189),),
        ),
        (
            "cpebach",
            "C. P. E. Bach",
            "Keyboard Sonata in A major, Wq. 55 No. 4, H. 186",
            PIANO,
            (("h186.mxl", "2. Poco adagio", 50),),
        ),
        (
            "weber",
            "Weber",
            "Clarinet Concertino, Op. 26 (piano reduction)",
            CLARINET,
            (("concertino_clarinet.mxl", "Adagio ma non troppo - Andante", 60),),
        ),
    ),
    "valid": (
        (
            "mozart/k156",
            _MOZART,
            "String Quartet No. 3 in G major, K. 156",
            QUARTET,
            (("movement1.mxl", "1. Presto", 168), ("movement2.mxl", "2. Adagio", 48)),
        ),
        (
            "beethoven/opus59no2",
            _BEETHOVEN,
            "String Quartet in E minor, Op. 59 No. 2",
            QUARTET,
            (("movement2.mxl", "2. Molto adagio", 54), ("movement3.mxl", "3. Allegretto", 184)),
        ),
        (
            "bach",
            "J. S. Bach",
            "The Well-Tempered Clavier I, BWV 846",
            PIANO,
            (("bwv846.mxl", "Prelude in C major", 72),),
        ),
    ),
    "test": (
        (
            "mozart/k80",
            _MOZART,
            "String Quartet No. 1 in G major, K. 80",
            QUARTET,
            (("movement2.mxl", "2. Allegro", 132),),
        ),
        (
            "haydn/opus1no1",
            _HAYDN,
            "String Quartet in B-flat major, Op. 1 No. 1",
            QUARTET,
            (("movement1.mxl", "1. Presto", 160),),
        ),
        (
            "beethoven",
            _BEETHOVEN,
            "String Quartet in C minor, Op. 18 No. 4",
            QUARTET,
            (("opus18no4.mxl", "1. Allegro ma non tanto", 138),),
        ),
        (
            "mozart/k545",
            _MOZART,
            "Piano Sonata No. 16 in C major, K. 545",
            PIANO,
            (("movement1_exposition.mxl", "1. Allegro (exposition, repeated)", 126),),
        ),
        (
            "joplin",
            "Joplin",
            "Maple Leaf Rag",
            PIANO,
            (("maple_leaf_rag.mxl", "Tempo di marcia", 100),),
        ),
    ),
}
_SECONDS = {"train": 98.0, "valid": 60.0, "test": 60.0}
_REPEATED = {"mozart/k545/movement1_exposition.mxl"}  # 22 s long without its repeat


def _pieces() -> tuple[Piece, ...]:
    found = []
    for number, split in enumerate(SPLITS, start=1):
        movements = ((work, row) for work in _WORKS[split] for row in work[-1])
        for index, (
            (directory, composer, composition, ensemble, _),
            (file, mark, bpm),
        ) in enumerate(movements, start=1):
            source = f"{directory}/{file}"
            key, times = f"id_{1000 * number + index}", 2 if source in _REPEATED else 1
            row = (
                key,
                split,
                source,
                composer,
                composition,
                mark,
                ensemble,
                float(bpm),
                _SECONDS[split],
                times,
            )
            found.append(Piece(*row))
    return tuple(found)


PIECES = _pieces()
