package run

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"pqlab/agent"
	"pqlab/capture"
	"pqlab/internal/netns"
	"pqlab/lab"
	"pqlab/report"
	"pqlab/topology"
)

// tableDir is the directory, below that of a run's captures, with the keys that decrypt them.
const tableDir = "wireshark"

const capturesCheck = "captures could be written"

// interfaceOf describes one end of a link in a capture.
func interfaceOf(l *lab.Lab, p topology.PlannedLink, own, far topology.End) capture.Options {
	state := l.Link(p.Name).State()
	shape := state.Shapes[0] // of what A sends
	if own.Node != p.A.Node {
		shape = state.Shapes[1]
	}
	comment := fmt.Sprintf("node %s; link %s; kind %s; MTU %d; shaper %s", own.Node, p.Name, p.Kind, p.MTU, state.Shaper)
	if text := shape.String(); text != "" {
		comment += ": " + text
	}
	return capture.Options{
		Name:        own.Node + ":" + own.Interface,
		Description: fmt.Sprintf("link %s: %s, %s to %s", p.Name, p.Kind, own.Node, far.Node),
		Comment:     comment, Speed: uint64(shape.Rate),
	}
}

// end of a link: the namespace and the interface.
type linkEnd struct {
	ns      *netns.Namespace
	iface   string
	options capture.Options
}

func endsOf(l *lab.Lab, p topology.PlannedLink) [2]linkEnd {
	return [2]linkEnd{
		{l.Node(p.A.Node).Namespace(), p.A.Interface, interfaceOf(l, p, p.A, p.B)},
		{l.Node(p.B.Node).Namespace(), p.B.Interface, interfaceOf(l, p, p.B, p.A)},
	}
}

// sectionOf is the comment on a capture.
func sectionOf(ctx context.Context, l *lab.Lab) (string, error) {
	var planes []string
	for _, t := range l.Plan.Tunnels {
		for _, node := range []string{t.A.Node, t.B.Node} {
			state, err := l.Tunnel(t.Name).State(ctx, node)
			if err != nil {
				return "", err
			}
			if !slices.Contains(planes, state.Dataplane) {
				planes = append(planes, state.Dataplane)
			}
		}
	}
	slices.Sort(planes)
	if planes == nil {
		planes = []string{"none"}
	}
	return fmt.Sprintf("topology %s; seed %d; dataplane %s; kernel %s", l.Plan.Name, l.Plan.Seed, strings.Join(planes, "+"), report.Kernel()), nil
}

// exports asks every node of a lab for what captures need, until ctx ends, and calls f with it, one call at a time. ended
// is called when a node tells no more, though nobody ended it: nothing need be waited for then.
func exports(ctx context.Context, l *lab.Lab, what agent.Export, f func(capture.Secrets), ended func(error)) error {
	names := map[[2]string]string{} // the other end of a tunnel, by its name and a node
	for _, t := range l.Plan.Tunnels {
		names[[2]string{t.Name, t.A.Node}], names[[2]string{t.Name, t.B.Node}] = t.B.Node, t.A.Node
	}
	var mu sync.Mutex
	until := map[string]time.Time{} // by node, of all that have an agent
	for _, n := range l.Plan.Nodes {
		if l.Node(n.Name).Agent() != nil {
			until[n.Name] = time.Time{}
		}
	}
	nodes := slices.Sorted(maps.Keys(until)) // from now on until is the callbacks'
	for _, node := range nodes {
		done, err := l.Node(node).Agent().Export(ctx, what, func(e agent.Exported) {
			s := capture.Secrets{TLS: e.TLS}
			for _, sa := range e.SAs {
				s.SAs = append(s.SAs, capture.SA{
					Tunnel: sa.Tunnel, From: names[[2]string{sa.Tunnel, node}], To: node, SPI: sa.SPI, Replaces: sa.Replaces,
					Src: sa.Src, Dst: sa.Dst, Key: sa.Key, Salt: sa.Salt,
				})
			}
			mu.Lock()
			defer mu.Unlock()
			until[node] = e.Until
			s.Until = e.Until
			for _, t := range until {
				if t.Before(s.Until) {
					s.Until = t
				}
			}
			f(s)
		})
		if err != nil {
			return err
		}
		go func() {
			if err := <-done; ctx.Err() == nil {
				ended(err)
			}
		}()
	}
	if len(nodes) == 0 {
		ended(nil)
	}
	return nil
}

// recording is the capture of one link.
type recording struct {
	link  string
	files *capture.Files
	file  *capture.File
	taps  []*capture.Tap
}

// capture begins to write every link's packets to a file of its own in dir. A disk that is full fails a check and not the
// run; there are no captures then.
func (r *runner) capture(ctx context.Context, dir string) error {
	made := missing(dir)
	err := r.startRecordings(ctx, dir)
	if err == nil {
		return nil
	}
	for _, d := range made { // what there is besides stays
		_ = os.Remove(d)
	}
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		r.check(capturesCheck, false, "there are none: "+err.Error())
		return nil
	}
	return err
}

// missing are the directory and those above it that are not there yet, the innermost first.
func missing(dir string) (all []string) {
	for dir = filepath.Clean(dir); ; dir = filepath.Dir(dir) {
		if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
			return all
		}
		all = append(all, dir)
	}
}

// startRecordings leaves no file behind after an error.
func (r *runner) startRecordings(ctx context.Context, dir string) (err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("captures: %w", err)
	}
	if err := report.RemoveCaptures(dir); err != nil {
		return fmt.Errorf("captures of an earlier run: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.discardRecordings())
		}
	}()
	section, err := sectionOf(ctx, r.lab)
	if err != nil {
		return err
	}
	if r.options.Version != "" {
		section += "; pqlab " + r.options.Version
	}
	if r.options.ExportKeys {
		if r.table, err = capture.NewTable(filepath.Join(dir, tableDir)); err != nil {
			return err
		}
	}
	for _, l := range r.plan.Links {
		rec, err := r.record(l, filepath.Join(dir, l.Name+".pcapng"), section)
		if err != nil {
			return fmt.Errorf("link %s: capture: %w", l.Name, err)
		}
		r.recordings = append(r.recordings, rec)
	}
	recordings := r.recordings
	if !r.options.TLSSecrets && r.table == nil {
		return nil
	}
	exporting, stop := context.WithCancel(context.WithoutCancel(ctx))
	r.stopExports = stop
	return exports(exporting, r.lab, agent.Export{TLS: r.options.TLSSecrets, SAs: r.table != nil}, func(s capture.Secrets) {
		if r.table != nil {
			r.table.Add(s.SAs)
		}
		for _, rec := range recordings {
			rec.file.Learn(s)
		}
	}, func(error) {
		for _, rec := range recordings {
			rec.file.NoMoreSecrets()
		}
	})
}

func (r *runner) record(l topology.PlannedLink, path, section string) (_ recording, err error) {
	files, err := capture.Create(path, 0)
	if err != nil {
		return recording{}, err
	}
	file := capture.NewFile(files, section)
	file.CutESP = r.options.ExportKeys
	rec := recording{link: l.Name, files: files, file: file}
	defer func() {
		if err != nil {
			file.Close() // why it cannot be written is told
			err = errors.Join(err, files.Discard())
		}
	}()
	if r.options.TLSSecrets || r.options.ExportKeys {
		file.SecretsFollow()
	}
	for _, end := range endsOf(r.lab, l) {
		end.options.File = file
		t, err := capture.Open(end.ns, end.iface, end.options)
		if err != nil {
			return rec, err
		}
		rec.taps = append(rec.taps, t)
	}
	return rec, files.Commit()
}

// discardRecordings removes what there is of captures that could not all begin.
func (r *runner) discardRecordings() error {
	if r.stopExports != nil {
		r.stopExports()
	}
	var errs []error
	for _, rec := range r.recordings {
		rec.file.Close() // it need not be whole
		errs = append(errs, rec.files.Discard())
	}
	if r.table != nil {
		errs = append(errs, r.table.Discard())
	}
	r.recordings, r.table = nil, nil
	return errors.Join(errs...)
}

// stopRecordings ends the captures. One that could not be written, as on a full disk, fails a check and not the run.
func (r *runner) stopRecordings(recordings []recording) {
	if len(recordings) == 0 {
		return
	}
	var incomplete []string
	var first error
	for _, rec := range recordings {
		err := errors.Join(rec.file.Close(), rec.files.Close())
		if err != nil {
			incomplete = append(incomplete, rec.link)
			if first == nil {
				first = err
			}
		}
		var sum capture.Statistics
		for _, t := range rec.taps {
			s, _ := t.Close() // it is closed, and its error told
			sum.Captured += s.Captured
			sum.Dropped += s.Dropped
		}
		name := rec.files.Names()[0]
		r.result.Captures = append(r.result.Captures, report.Capture{Link: rec.link, File: name, Captured: sum.Captured, Dropped: sum.Dropped})
		if sum.Dropped > 0 {
			r.warn(fmt.Sprintf("link %s: the capture has no room for %d packets; they passed but are not in %s", rec.link, sum.Dropped, name))
		}
		if n := rec.file.Unordered(); n > 0 {
			r.warn(fmt.Sprintf("link %s: %d packets of the capture are out of order", rec.link, n))
		}
	}
	if r.stopExports != nil {
		r.stopExports()
	}
	detail := fmt.Sprintf("links: %d", len(recordings))
	if r.table != nil {
		if err := r.table.Close(); err != nil && first == nil {
			first, incomplete = err, append(incomplete, "table of SAs")
		}
	}
	if first != nil {
		detail = fmt.Sprintf("incomplete: %s: %v", strings.Join(incomplete, ", "), first)
	}
	r.check(capturesCheck, first == nil, detail)
}
