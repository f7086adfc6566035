"""Finds products by words: a tantivy index in memory, kept current in small commits.

Three tiers, each asked only when the ones before found few: all words, all words with a typo each,
any word. So a typo or one word too many never empties an answer, and never dilutes a good one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import tantivy
from numpy.typing import NDArray

from headrace.ranker.catalogue import Listing

_BOOSTS = {"title": 3.0, "sku": 3.0, "brands": 1.5, "categories": 1.5, "attributes": 1.0, "description": 0.7}
_FEW = 5
# ranks between the last of a tier and the first of the next: more than a person's taste can make up for
_TIER_GAP = 25
_WRITER_BYTES = 15_000_000
_COMMIT_LIMIT = 2_000
_MAX_WORDS = 16


@dataclass(frozen=True, slots=True)
class Hits:
    """What the words found, best first; `total` counts beyond the limit too.

    Even matches go by ordinal and share a rank (0 is best); a later tier starts further back.
    """

    ordinals: NDArray[np.uint32]
    ranks: NDArray[np.float32]
    total: int

    @classmethod
    def none(cls) -> Hits:
        return cls(np.zeros(0, np.uint32), np.zeros(0, np.float32), 0)


class LexicalIndex:
    """Products by their words. `put` and `remove` return at once; `run` commits what they noted."""

    def __init__(self, commit_s: float) -> None:
        self._commit_s = commit_s
        self._schema = _schema()
        self._index = tantivy.Index(self._schema)
        for name, analyzer in (("words", _word_analyzer()), ("code", _code_analyzer())):
            self._index.register_tokenizer(name, analyzer)
        self._analyzer = _word_analyzer()
        self._code_analyzer = _code_analyzer()
        self._stopword_filter = _stopword_analyzer()
        self._writer = self._index.writer(_WRITER_BYTES, 1)
        self._searcher = self._index.searcher()
        self._pending: dict[int, Listing | None] = {}
        self._changed = asyncio.Event()
        # one thread: a tantivy writer belongs to one at a time
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="lexical")

    @property
    def documents(self) -> int:
        return int(self._searcher.num_docs)

    def put(self, listings: Iterable[Listing]) -> None:
        for listing in listings:
            self._pending[listing.ordinal] = listing
        self._changed.set()

    def remove(self, ordinals: Iterable[int]) -> None:
        for ordinal in ordinals:
            self._pending[ordinal] = None
        self._changed.set()

    async def run(self) -> None:
        """Commits for ever: the first change at once, then at most one commit every `commit_s`."""
        while True:
            await self._changed.wait()
            await self.commit()
            await asyncio.sleep(self._commit_s)

    async def commit(self) -> None:
        """Makes what was noted so far visible to searches."""
        self._changed.clear()
        while self._pending:
            taken = [self._pending.popitem() for _ in range(min(len(self._pending), _COMMIT_LIMIT))]
            await asyncio.get_running_loop().run_in_executor(self._thread, self._write, taken)

    def close(self) -> None:
        self._thread.shutdown()

    def _write(self, changes: Sequence[tuple[int, Listing | None]]) -> None:
        for ordinal, listing in changes:
            self._writer.delete_documents_by_term("ordinal", ordinal)
            if listing is not None:
                self._writer.add_document(_document(listing))
        self._writer.commit()
        self._index.reload()
        self._searcher = self._index.searcher()

    def search(self, query: str, allowed_N: NDArray[np.bool_], limit: int) -> Hits:
        """Allowed products that match, at most `limit`."""
        words = self._words(query)
        if not words:
            return Hits.none()
        searcher = self._searcher
        hits = self._tier(searcher, self._all_words(words, exact=True), allowed_N, limit)
        if hits.total < _FEW:
            hits = _joined(hits, self._tier(searcher, self._all_words(words, exact=False), allowed_N, limit), limit)
        if hits.total < _FEW and len(words) > 1:
            hits = _joined(hits, self._tier(searcher, self._any_word(words), allowed_N, limit), limit)
        return hits

    def _words(self, query: str) -> list[tuple[str, str]]:
        """Stemmed words, each with its plain form for codes; stop words only when there is nothing else."""
        plain = self._code_analyzer.analyze(query)
        wanted = set(self._stopword_filter.analyze(query))
        kept = [word for word in plain if word in wanted] or plain
        stems = [(" ".join(self._analyzer.analyze(word)) or word, word) for word in dict.fromkeys(kept)]
        return stems[:_MAX_WORDS]

    def _all_words(self, words: Sequence[tuple[str, str]], *, exact: bool) -> tantivy.Query:
        word_query = self._word if exact else self._fuzzy_word
        return tantivy.Query.boolean_query([(tantivy.Occur.Must, word_query(stem, plain)) for stem, plain in words])

    def _any_word(self, words: Sequence[tuple[str, str]]) -> tantivy.Query:
        return tantivy.Query.boolean_query(
            [(tantivy.Occur.Should, self._fuzzy_word(stem, plain)) for stem, plain in words]
        )

    def _word(self, stem: str, plain: str) -> tantivy.Query:
        query = tantivy.Query
        return query.disjunction_max_query(
            [
                query.boost_query(query.term_query(self._schema, field, plain if field == "sku" else stem), boost)
                for field, boost in _BOOSTS.items()
            ],
            0.1,
        )

    def _fuzzy_word(self, stem: str, plain: str) -> tantivy.Query:
        distance = _typos(stem)
        exact = tantivy.Query.boost_query(self._word(stem, plain), 2.0)
        if distance == 0:
            return exact
        fuzzy = [
            tantivy.Query.boost_query(tantivy.Query.fuzzy_term_query(self._schema, field, stem, distance), boost)
            for field, boost in _BOOSTS.items()
            if field not in ("sku", "description")
        ]
        return tantivy.Query.disjunction_max_query([exact, *fuzzy])

    def _tier(self, searcher: tantivy.Searcher, query: tantivy.Query, allowed_N: NDArray[np.bool_], limit: int) -> Hits:
        # the filter is applied after the search, so the search takes all that match before it is cut
        found = searcher.search(query, limit=max(1, searcher.num_docs), count=False).hits
        if not found:
            return Hits.none()
        ordinals = np.array(searcher.fast_field_values("ordinal", [place for _, place in found]), np.int64)
        scores = np.array([score for score, _ in found], np.float32)
        in_range = ordinals < len(allowed_N)
        keep = in_range & allowed_N[np.where(in_range, ordinals, 0)] if len(allowed_N) else in_range
        ordinals, scores = ordinals[keep], scores[keep]
        order = np.lexsort((ordinals, -scores))[:limit]
        return Hits(ordinals[order].astype(np.uint32), shared_ranks(scores[order]), len(ordinals))


def _typos(word: str) -> int:
    """How many edits a word of this length may be off; numbers must be right."""
    if len(word) < 4 or any(letter.isdigit() for letter in word):
        return 0
    return 1 if len(word) < 8 else 2


def shared_ranks(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """0, 1, 1, 3 …: places in a list that falls by score; equal scores share the first one's."""
    places = np.arange(len(scores), dtype=np.float32)
    is_new = np.ones(len(scores), np.bool_)
    # the same words in another segment may differ in the last bits
    is_new[1:] = scores[:-1] - scores[1:] > 1e-4 * np.abs(scores[:-1])
    ranks: NDArray[np.float32] = np.maximum.accumulate(np.where(is_new, places, 0))
    return ranks


def _joined(first: Hits, second: Hits, limit: int) -> Hits:
    """Both, the second's new ones a tier further back."""
    new = ~np.isin(second.ordinals, first.ordinals)
    ordinals = np.concatenate([first.ordinals, second.ordinals[new]])
    start = first.ranks[-1] + 1 + _TIER_GAP if len(first.ranks) else 0
    ranks = np.concatenate([first.ranks, second.ranks[new] + np.float32(start)])
    total = max(first.total, second.total, len(ordinals))
    return Hits(ordinals[:limit], ranks[:limit], total)


def _schema() -> tantivy.Schema:
    builder = tantivy.SchemaBuilder()
    # signed, since `delete_documents_by_term` takes a Python int so: it finds nothing in an unsigned field
    builder.add_integer_field("ordinal", indexed=True, fast=True)
    for field in _BOOSTS:
        builder.add_text_field(field, tokenizer_name="code" if field == "sku" else "words", index_option="freq")
    return builder.build()


def _document(listing: Listing) -> tantivy.Document:
    document = tantivy.Document()
    document.add_integer("ordinal", listing.ordinal)
    document.add_text("sku", listing.id)
    document.add_text("title", listing.title)
    document.add_text("description", listing.description)
    for field, texts in (
        ("brands", listing.brands),
        ("categories", listing.categories),
        ("attributes", listing.attributes),
    ):
        for text in texts:
            document.add_text(field, text)
    return document


def _word_analyzer() -> tantivy.TextAnalyzer:
    return _plain().filter(tantivy.Filter.stemmer("english")).build()


def _code_analyzer() -> tantivy.TextAnalyzer:
    return _plain().build()


def _stopword_analyzer() -> tantivy.TextAnalyzer:
    return _plain().filter(tantivy.Filter.stopword("english")).build()


def _plain() -> tantivy.TextAnalyzerBuilder:
    filters = (tantivy.Filter.remove_long(64), tantivy.Filter.lowercase(), tantivy.Filter.ascii_fold())
    builder = tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.simple())
    for each in filters:
        builder = builder.filter(each)
    return builder
