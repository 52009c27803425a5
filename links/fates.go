package links

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"pqlab/internal/netns"
	"pqlab/links/medium"
	"pqlab/links/wire"
	"pqlab/topology"
)

// Fates are directories of traces: of what befalls the packets of each link that has a shape, in a file LINK.fates. Those
// links are then wires. The zero value is neither.
type Fates struct {
	Record string // gets them
	Replay string // has them: what befell those packets befalls these
}

// FatesError says why fates cannot be recorded, or replayed, as it is asked for: because of the lab, the other options, or
// the files. Nothing was made.
type FatesError struct{ err error }

func (e *FatesError) Error() string { return e.err.Error() }
func (e *FatesError) Unwrap() error { return e.err }

func badFates(format string, args ...any) error { return &FatesError{fmt.Errorf(format, args...)} }

// ErrReplay is wrapped by Set's error for a link that replays a trace.
var ErrReplay = errors.New("replays a trace of fates, and its shape does not change")

const fatesExt = ".fates"

// Choose is Choose of these links, and besides reads all traces that are to be replayed. What cannot be recorded or replayed
// is a *FatesError.
func (f Fates) Choose(links []topology.PlannedLink, want string) (Shaper, error) {
	return f.choose(links, want, probed())
}

func (f Fates) choose(links []topology.PlannedLink, want string, k kernel) (Shaper, error) {
	if f == (Fates{}) {
		return choose(links, want, k)
	}
	t := &traced{wired: wired{k, newAir(links)}, record: f.Record}
	if want != "" && want != "auto" && want != t.Name() && slices.Contains(Names(), want) {
		return nil, badFates("--shaper=%s keeps no account of what befalls packets, so that fates are neither recorded nor replayed; --shaper=%s does", want, t.Name())
	}
	var err error
	var lacking *UnsupportedError
	if t.Shaper, err = choose(links, want, k); errors.As(err, &lacking) {
		lacking.Shaped = true
	}
	if err != nil {
		return nil, err
	}
	var shaped []string
	for _, l := range links {
		if l.WiFi != nil {
			return nil, badFates("link %s has airtime: what befalls its packets comes of what all stations of the cell send at that time, so that fates are neither recorded nor replayed; "+
				"a rate, a delay and a loss of its own in place of wifi can be", l.Name)
		}
		if !bare(l.Shape) {
			shaped = append(shaped, l.Name)
			if lacks := t.Lacks(l); lacks != nil {
				return nil, &UnsupportedError{Links: []LinkNeeds{*lacks}, Shaped: true}
			}
		}
	}
	if shaped == nil {
		return nil, badFates("no link of the lab has a shape: there are no fates to record or to replay")
	}
	if err := f.checkRecord(shaped); err != nil {
		return nil, err
	}
	if f.Replay != "" {
		if t.replay, err = readFates(f.Replay, links, shaped); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// checkRecord tells whether a directory may get traces of these links. It has nothing else then, so that all traces of a
// directory are always of one run.
func (f Fates) checkRecord(links []string) error {
	if f.Record == "" {
		return nil
	}
	entries, err := os.ReadDir(f.Record)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return badFates("directory for traces of fates: %w", err)
	}
	if f.Replay != "" {
		a, errA := os.Stat(f.Record)
		b, errB := os.Stat(f.Replay)
		if errA == nil && errB == nil && os.SameFile(a, b) {
			return badFates("directory %s: its traces are replayed; record to another one", f.Record)
		}
	}
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), fatesExt)
		if !ok || !e.Type().IsRegular() || !slices.Contains(links, name) {
			return badFates("directory %s holds %s, which is no trace of this lab; name a new or empty one", f.Record, e.Name())
		}
	}
	return nil
}

// readFates reads the traces of the links that have a shape, by their names.
func readFates(dir string, links []topology.PlannedLink, shaped []string) (map[string]*medium.Trace, error) {
	all := map[string]*medium.Trace{}
	for _, l := range links {
		if !slices.Contains(shaped, l.Name) {
			continue
		}
		path := filepath.Join(dir, l.Name+fatesExt)
		trace, err := readTrace(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, badFates("link %s has a shape and no trace: %w; all links that have one are recorded together", l.Name, err)
		}
		var at *medium.TraceError
		switch header := headerOf(l); {
		case errors.As(err, &at):
			return nil, badFates("%s:%d: %w: %w", path, at.Line, medium.ErrTrace, at.Err)
		case err != nil:
			return nil, badFates("trace of link %s: %w", l.Name, err)
		case trace.Link != header.Link:
			return nil, badFates("%s:%d: is of link %q, not of %s", path, medium.LinkLine, trace.Link, header.Link)
		case !slices.Equal(trace.Ends, header.Ends):
			return nil, badFates("%s:%d: is of a link between %s, and %s is between %s", path, medium.EndsLine,
				strings.Join(trace.Ends, " and "), l.Name, strings.Join(header.Ends, " and "))
		case trace.Shape != header.Shape:
			return nil, badFates("%s:%d: was recorded with %s, and link %s has %s: what befell the packets is not what this shape does", path, medium.ShapeLine,
				trace.Shape, l.Name, header.Shape)
		}
		all[l.Name] = trace
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, badFates("directory of traces: %w", err)
	}
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), fatesExt); ok && all[name] == nil {
			return nil, badFates("%s is of no link of this lab that has a shape: take it away, or name the lab that it is of", filepath.Join(dir, e.Name()))
		}
	}
	return all, nil
}

func readTrace(path string) (_ *medium.Trace, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return medium.ReadTrace(f)
}

// headerOf is that of a link's trace.
func headerOf(l topology.PlannedLink) medium.Header {
	return medium.Header{Link: l.Name, Ends: []string{l.A.Node, l.B.Node}, Seed: l.Seed, Shape: l.Does(l.Shape)}
}

// traced makes wires of the links that have a shape, and records and replays what befalls their packets.
type traced struct {
	Shaper // of the other links
	wired  wired
	record string                   // directory; empty: nothing is recorded
	replay map[string]*medium.Trace // by link; nil: nothing is replayed
}

func (t *traced) Name() string { return t.wired.Name() }

func (t *traced) Lacks(link topology.PlannedLink) *LinkNeeds {
	if bare(link.Shape) {
		return t.Shaper.Lacks(link)
	}
	return t.wired.Lacks(link)
}

func (t *traced) connect(link topology.PlannedLink, a, b *netns.Namespace) (_ body, err error) {
	if bare(link.Shape) {
		return t.Shaper.connect(link, a, b)
	}
	h := &history{}
	one := oneLink(newMedium(link))
	if h.trace = t.replay[link.Name]; h.trace != nil {
		h.replay = medium.NewReplay(h.trace)
		one = h.replay
	}
	over := medium.Medium(one)
	if t.record != "" {
		if h.spool, err = newSpool(filepath.Join(t.record, link.Name+fatesExt)); err != nil {
			return nil, badFates("trace: %w", err)
		}
		h.recorder = medium.Record(over, h.spool, headerOf(link))
		over = h.recorder
	}
	w, err := wire.New(over)
	if err != nil {
		return nil, errors.Join(err, h.discard())
	}
	d := &driven{plan: link, ends: [2]end{{ns: a}, {ns: b}}, wire: w, model: line{one, w}}
	if err := d.attach(); err != nil {
		return nil, errors.Join(err, h.discard()) // the wire's thread has ended
	}
	d.history = h
	return d, nil
}
