// Command tiles reads a running log as any client of C2SP tlog-tiles or static-ct-api would, with libraries that know
// nothing of the log's server, and refuses what such a client would refuse.
//
//	tiles tlog  URL VKEY         entries in bundles (tlog-tiles)
//	tiles ct    URL ORIGIN SPKI  entries in data tiles (static-ct-api); SPKI in base64
//
// It collects every checkpoint that the log publishes until its standard input ends. Then, for each of them: the signature,
// consistency with every later one (by two libraries), every tile, partial tile and entry bundle that it implies, and
// inclusion of its last entry; and for the newest the whole tree, rebuilt from the entries. One JSON line says what was
// checked.
package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	fnote "github.com/transparency-dev/formats/note"
	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"github.com/transparency-dev/tessera/api"
	"github.com/transparency-dev/tessera/api/layout"
	"github.com/transparency-dev/tessera/client"
	"github.com/transparency-dev/tessera/ctonly"
	"github.com/transparency-dev/tessera/fsck"
	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// pause between two looks at the checkpoint.
const pause = 10 * time.Millisecond

// source is the log over HTTP: exactly the resource asked for, with no falling back to another.
type source struct {
	base   string
	bundle string
	mutex  sync.Mutex
	kept   map[string][]byte
}

func (s *source) get(ctx context.Context, path string) ([]byte, error) {
	s.mutex.Lock()
	kept, found := s.kept[path]
	s.mutex.Unlock()
	if found {
		return kept, nil
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.base+path, nil)
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 64<<20))
	if err != nil {
		return nil, err
	}
	if response.StatusCode == http.StatusNotFound {
		return nil, fmt.Errorf("%s: %w", path, os.ErrNotExist)
	}
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: status %d", path, response.StatusCode)
	}
	if path != "checkpoint" {
		if kind := response.Header.Get("Content-Type"); kind != "application/octet-stream" {
			return nil, fmt.Errorf("%s: content type %q", path, kind)
		}
		if cache := response.Header.Get("Cache-Control"); !strings.Contains(cache, "immutable") {
			return nil, fmt.Errorf("%s: cache control %q", path, cache)
		}
		// What is immutable is asked for once.
		s.mutex.Lock()
		s.kept[path] = body
		s.mutex.Unlock()
	}
	return body, nil
}

func (s *source) ReadCheckpoint(ctx context.Context) ([]byte, error) { return s.get(ctx, "checkpoint") }

func (s *source) ReadTile(ctx context.Context, level, index uint64, p uint8) ([]byte, error) {
	return s.get(ctx, layout.TilePath(level, index, p))
}

func (s *source) ReadEntryBundle(ctx context.Context, index uint64, p uint8) ([]byte, error) {
	return s.get(ctx, strings.Replace(layout.EntriesPath(index, p), "tile/entries/", s.bundle, 1))
}

// tiles is the same log for the second library.
type tiles struct{ source *source }

func (t tiles) Height() int { return 8 }

func (t tiles) ReadTiles(wanted []tlog.Tile) ([][]byte, error) {
	var found [][]byte
	for _, tile := range wanted {
		// Paths of the module checksum database name the height; those of tlog-tiles do not.
		path := strings.Replace(tile.Path(), "tile/8/", "tile/", 1)
		body, err := t.source.get(context.Background(), path)
		if err != nil {
			return nil, err
		}
		found = append(found, body)
	}
	return found, nil
}

func (t tiles) SaveTiles([]tlog.Tile, [][]byte) {}

// checkpoint is one that was seen.
type checkpoint struct {
	raw  []byte
	size uint64
	root []byte
}

func (c checkpoint) tree() tlog.Tree {
	tree := tlog.Tree{N: int64(c.size)}
	copy(tree.Hash[:], c.root)
	return tree
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "REFUSED:", err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	if len(arguments) < 3 {
		return errors.New("usage: tiles tlog URL VKEY | tiles ct URL ORIGIN SPKI")
	}
	base, err := url.Parse(arguments[1])
	if err != nil {
		return err
	}
	log := &source{base: strings.TrimSuffix(base.String(), "/") + "/", bundle: "tile/entries/", kept: map[string][]byte{}}
	var verifier note.Verifier
	hasher := bundleHashes
	switch {
	case arguments[0] == "tlog" && len(arguments) == 3:
		verifier, err = note.NewVerifier(arguments[2])
	case arguments[0] == "ct" && len(arguments) == 4:
		log.bundle = "tile/data/"
		hasher = (&dataTiles{}).hashes
		verifier, err = certificateLogKey(arguments[2], arguments[3])
	default:
		err = errors.New("unknown arguments")
	}
	if err != nil {
		return err
	}
	seen, err := watch(log, verifier)
	if err != nil {
		return err
	}
	return check(log, verifier, seen, hasher)
}

// watch collects checkpoints until standard input ends.
func watch(log *source, verifier note.Verifier) ([]checkpoint, error) {
	ended := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(ended)
	}()
	var seen []checkpoint
	for last := false; ; {
		read, raw, _, err := client.FetchCheckpoint(context.Background(), log.ReadCheckpoint, verifier, verifier.Name())
		if err != nil {
			return nil, err
		}
		if len(seen) == 0 || seen[len(seen)-1].size != read.Size {
			seen = append(seen, checkpoint{raw, read.Size, read.Hash})
		} else if !bytes.Equal(seen[len(seen)-1].root, read.Hash) {
			return nil, fmt.Errorf("two roots of size %d", read.Size)
		}
		if last {
			return seen, nil
		}
		select {
		case <-ended:
			last = true
		case <-time.After(pause):
		}
	}
}

func check(log *source, verifier note.Verifier, seen []checkpoint, hasher func([]byte) ([][]byte, error)) error {
	ctx := context.Background()
	pairs, inclusions, resources := 0, 0, 0
	for place, old := range seen {
		for _, newer := range seen[place+1:] {
			if newer.size < old.size {
				return fmt.Errorf("the log went back from %d to %d", old.size, newer.size)
			}
			if err := consistent(ctx, log, old, newer); err != nil {
				return fmt.Errorf("%d to %d: %w", old.size, newer.size, err)
			}
			pairs++
		}
		if old.size == 0 {
			if !bytes.Equal(old.root, rfc6962.DefaultHasher.EmptyRoot()) {
				return errors.New("the empty tree has another root")
			}
			continue
		}
		count, err := implied(ctx, log, old)
		if err != nil {
			return fmt.Errorf("at size %d: %w", old.size, err)
		}
		resources += count
		for _, index := range []uint64{0, old.size / 2, old.size - 1} {
			if err := included(ctx, log, index, old); err != nil {
				return fmt.Errorf("entry %d at size %d: %w", index, old.size, err)
			}
			inclusions++
		}
	}
	if err := fsck.New(verifier.Name(), verifier, log, hasher, fsck.Opts{N: 2}).Check(ctx); err != nil {
		return fmt.Errorf("rebuilding the tree: %w", err)
	}
	return json.NewEncoder(os.Stdout).Encode(map[string]any{
		"checkpoints": len(seen), "size": seen[len(seen)-1].size, "pairs": pairs,
		"inclusions": inclusions, "resources": resources,
	})
}

// consistent proves with both libraries that newer extends old.
func consistent(ctx context.Context, log *source, old, newer checkpoint) error {
	if old.size > 0 {
		builder, err := client.NewProofBuilder(ctx, newer.size, log.ReadTile)
		if err != nil {
			return err
		}
		path, err := builder.ConsistencyProof(ctx, old.size, newer.size)
		if err != nil {
			return err
		}
		if err := proof.VerifyConsistency(rfc6962.DefaultHasher, old.size, newer.size, path, old.root, newer.root); err != nil {
			return err
		}
		path2, err := tlog.ProveTree(int64(newer.size), int64(old.size), tlog.TileHashReader(newer.tree(), tiles{log}))
		if err != nil {
			return err
		}
		return tlog.CheckTree(path2, int64(newer.size), newer.tree().Hash, int64(old.size), old.tree().Hash)
	}
	return nil
}

// included proves with both libraries that the tree of a checkpoint holds an entry; the leaf's hash comes from a tile that
// was authenticated against the checkpoint.
func included(ctx context.Context, log *source, index uint64, of checkpoint) error {
	reader := tlog.TileHashReader(of.tree(), tiles{log})
	leaves, err := reader.ReadHashes([]int64{tlog.StoredHashIndex(0, int64(index))})
	if err != nil {
		return err
	}
	record, err := tlog.ProveRecord(int64(of.size), int64(index), reader)
	if err != nil {
		return err
	}
	if err := tlog.CheckRecord(record, int64(of.size), of.tree().Hash, int64(index), leaves[0]); err != nil {
		return err
	}
	builder, err := client.NewProofBuilder(ctx, of.size, log.ReadTile)
	if err != nil {
		return err
	}
	path, err := builder.InclusionProof(ctx, index)
	if err != nil {
		return err
	}
	return proof.VerifyInclusion(rfc6962.DefaultHasher, index, of.size, leaves[0][:], path, of.root)
}

// implied reads the right edge of a checkpoint's tree: all partial tiles, the partial bundle, and the last full ones. Each
// must be there under its own name, with exactly the promised width.
func implied(ctx context.Context, log *source, of checkpoint) (int, error) {
	count := 0
	for level, items := uint64(0), of.size; items > 0; level, items = level+1, items/layout.TileWidth {
		index, width := items/layout.TileWidth, items%layout.TileWidth
		if width > 0 {
			tile, err := log.ReadTile(ctx, level, index, uint8(width))
			if err != nil {
				return 0, err
			}
			if uint64(len(tile)) != width*tlog.HashSize {
				return 0, fmt.Errorf("tile of width %d has %d bytes", width, len(tile))
			}
			count++
		}
		if index > 0 {
			tile, err := log.ReadTile(ctx, level, index-1, 0)
			if err != nil {
				return 0, err
			}
			if len(tile) != layout.TileWidth*tlog.HashSize {
				return 0, fmt.Errorf("full tile has %d bytes", len(tile))
			}
			count++
		}
	}
	if width := of.size % layout.EntryBundleWidth; width > 0 {
		if _, err := log.ReadEntryBundle(ctx, of.size/layout.EntryBundleWidth, uint8(width)); err != nil {
			return 0, err
		}
		count++
	}
	return count, nil
}

// bundleHashes are the leaf hashes of an entry bundle.
func bundleHashes(raw []byte) ([][]byte, error) {
	var bundle api.EntryBundle
	if err := bundle.UnmarshalText(raw); err != nil {
		return nil, err
	}
	var hashes [][]byte
	for _, entry := range bundle.Entries {
		hashes = append(hashes, rfc6962.DefaultHasher.HashLeaf(entry))
	}
	return hashes, nil
}

// dataTiles reads data tiles in order.
type dataTiles struct{ next uint64 }

// hashes are the leaf hashes of a data tile, each record written again by another library and compared.
func (d *dataTiles) hashes(raw []byte) ([][]byte, error) {
	var hashes [][]byte
	for rest := cryptobyte.String(raw); !rest.Empty(); d.next++ {
		whole := []byte(rest)
		entry, err := readEntry(&rest)
		if err != nil {
			return nil, fmt.Errorf("record %d: %w", d.next, err)
		}
		if record := whole[:len(whole)-len(rest)]; !bytes.Equal(record, entry.LeafData(d.next)) {
			return nil, fmt.Errorf("record %d is written in another way", d.next)
		}
		hashes = append(hashes, entry.MerkleLeafHash(d.next))
	}
	return hashes, nil
}

func readEntry(rest *cryptobyte.String) (*ctonly.Entry, error) {
	var entry ctonly.Entry
	var kind uint16
	var body, extensions, fingerprints cryptobyte.String
	malformed := errors.New("malformed")
	if !rest.ReadUint64(&entry.Timestamp) || !rest.ReadUint16(&kind) {
		return nil, malformed
	}
	switch kind {
	case 0:
	case 1:
		entry.IsPrecert = true
		if !rest.ReadBytes(&entry.IssuerKeyHash, 32) {
			return nil, malformed
		}
	default:
		return nil, malformed
	}
	if !rest.ReadUint24LengthPrefixed(&body) || !rest.ReadUint16LengthPrefixed(&extensions) {
		return nil, malformed
	}
	entry.Certificate = body
	if entry.IsPrecert {
		var submitted cryptobyte.String
		if !rest.ReadUint24LengthPrefixed(&submitted) {
			return nil, malformed
		}
		entry.Precertificate = submitted
	}
	if !rest.ReadUint16LengthPrefixed(&fingerprints) || len(fingerprints)%32 != 0 {
		return nil, malformed
	}
	for !fingerprints.Empty() {
		var one [32]byte
		if !fingerprints.CopyBytes(one[:]) {
			return nil, malformed
		}
		entry.FingerprintsChain = append(entry.FingerprintsChain, one)
	}
	return &entry, nil
}

// certificateLogKey is the verifier of a certificate log's checkpoints.
func certificateLogKey(origin, spki string) (note.Verifier, error) {
	der, err := base64.StdEncoding.DecodeString(spki)
	if err != nil {
		return nil, err
	}
	key, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, err
	}
	text, err := fnote.RFC6962VerifierString("https://"+origin, key)
	if err != nil {
		return nil, err
	}
	return fnote.NewRFC6962Verifier(text)
}
