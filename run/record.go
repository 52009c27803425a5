package run

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"pqlab/agent"
	"pqlab/capture"
	"pqlab/supervisor"
)

// Capture gives what a capture of the lab needs: the sockets, and news of secrets until ctx ends.
func (h *held) Capture(ctx context.Context, q supervisor.CaptureRequest, news func(supervisor.CaptureNews)) (_ supervisor.Capture, err error) {
	l := h.lab
	for _, name := range q.Links {
		if l.Link(name) == nil {
			return supervisor.Capture{}, fmt.Errorf("%w: %q", supervisor.ErrNoLink, name)
		}
	}
	out := supervisor.Capture{}
	defer func() {
		if err != nil {
			for _, e := range out.Ends {
				err = errors.Join(err, e.Socket.Close())
			}
			out = supervisor.Capture{}
		}
	}()
	if out.Comment, err = sectionOf(ctx, l); err != nil {
		return out, err
	}
	for _, p := range l.Plan.Links {
		if len(q.Links) > 0 && !slices.Contains(q.Links, p.Name) {
			continue
		}
		out.Links++
		for _, end := range endsOf(l, p) {
			sock, err := capture.Socket(end.ns, end.iface, q.SnapLen, nil)
			if err != nil {
				return out, fmt.Errorf("link %s: %w", p.Name, err)
			}
			out.Ends = append(out.Ends, supervisor.CaptureEnd{
				Name: end.options.Name, Description: end.options.Description, Comment: end.options.Comment, Speed: end.options.Speed, Socket: sock,
			})
		}
	}
	if q.TLS || q.SAs {
		if err := exports(ctx, l, agent.Export{TLS: q.TLS, SAs: q.SAs}, func(s capture.Secrets) {
			news(supervisor.CaptureNews{Secrets: &s})
		}, func(error) { news(supervisor.CaptureNews{NoMore: true}) }); err != nil {
			return out, err
		}
	}
	if q.Rekey {
		go h.rekeyFor(ctx, q.Links, news)
	}
	return out, nil
}

// rekeyFor replaces the keys of the tunnels that pass some of the links.
func (h *held) rekeyFor(ctx context.Context, links []string, news func(supervisor.CaptureNews)) {
	for _, t := range h.lab.Plan.Tunnels {
		if len(links) > 0 && !slices.ContainsFunc(t.Links, func(l string) bool { return slices.Contains(links, l) }) {
			continue
		}
		if _, err := h.lab.Tunnel(t.Name).Rekey(ctx, t.A.Node); err != nil && ctx.Err() == nil {
			news(supervisor.CaptureNews{Warning: fmt.Sprintf("rekey: %v", err)})
		}
	}
}

// RecordOptions say how a capture of a lab that is up is made.
type RecordOptions struct {
	Request  supervisor.CaptureRequest
	Path     string        // of the file; empty: Stdout gets it
	Stdout   io.Writer     // a pipe to a program that shows it
	Duration time.Duration // 0: no limit
	Packets  uint64        // 0: no limit
	Bytes    int64         // of a file; 0: no limit
	Files    int           // keep so many files of Bytes, and never end; 0: one
	Version  string        // of pqlab
	Note     func(string)  // told what is worth telling meanwhile
}

// Record is what a capture of a lab came to.
type Record struct {
	Files     []string `json:"files"`
	Table     string   `json:"table,omitempty"` // directory with the keys of the SAs
	Links     int      `json:"links"`
	Ends      int      `json:"interfaces"`
	Captured  uint64   `json:"captured"`  // packets that are in the files, or were in files that are gone
	Dropped   uint64   `json:"dropped"`   // packets that passed and are in no file
	Unordered uint64   `json:"unordered"` // packets out of order
	Sessions  int      `json:"tls_sessions"`
	SAs       int      `json:"sas"`
	Ended     string   `json:"ended"` // by what
}

// TableOf is the directory of the keys that decrypt a capture.
func TableOf(path string) string {
	return strings.TrimSuffix(path, filepath.Ext(path)) + "." + tableDir
}

// CaptureLab records a lab that is up until ctx ends, a limit is reached, or the lab goes. The end of ctx is no error: the
// files are complete then. If the capture cannot begin nothing is left.
func CaptureLab(ctx context.Context, client *supervisor.Client, o RecordOptions) (_ Record, err error) {
	if o.Note == nil {
		o.Note = func(string) {}
	}
	// Its secrets come until the capture has ended, also where that is because ctx has.
	talking, hangUp := context.WithCancel(context.WithoutCancel(ctx))
	defer hangUp()
	stopAsking := context.AfterFunc(ctx, hangUp) // nobody waits for the answer of a lab that does not come
	src, err := client.Capture(talking, o.Request)
	stopAsking()
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return Record{}, err
	}
	defer src.Close()
	s := &session{options: o, source: src, sockets: src.Ends}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.discard())
		}
	}()
	if err := s.open(); err != nil {
		return Record{}, err
	}
	out := s.run(ctx)
	return out, s.err
}

// session is a capture of a lab that is up.
type session struct {
	options RecordOptions
	source  *supervisor.Recording
	sockets []supervisor.CaptureEnd // not attached yet
	files   *capture.Files          // nil: standard output
	table   *capture.Table          // nil: keys are not exported
	file    *capture.File
	taps    []*capture.Tap
	record  Record
	begun   bool
	err     error
}

// open makes the files and attaches the sockets. What has passed since the sockets were made is in them.
func (s *session) open() (err error) {
	o := s.options
	w := o.Stdout
	if o.Path != "" {
		if s.files, err = capture.Create(o.Path, o.Files); err != nil {
			return err
		}
		w = s.files
	}
	if o.Request.SAs {
		s.record.Table = TableOf(o.Path)
		if s.table, err = capture.NewTable(s.record.Table); err != nil {
			return err
		}
	}
	section := s.source.Comment
	if o.Version != "" {
		section += "; pqlab " + o.Version
	}
	s.file = capture.NewFile(w, section)
	s.file.MaxPackets, s.file.MaxBytes, s.file.CutESP = o.Packets, o.Bytes, o.Request.SAs
	if o.Files > 0 {
		s.file.Next = s.files.Next
	}
	if o.Request.TLS || o.Request.SAs {
		s.file.SecretsFollow()
	}
	for len(s.sockets) > 0 {
		e := s.sockets[0]
		t, err := capture.Attach(e.Socket, capture.Options{
			File: s.file, Name: e.Name, Description: e.Description, Comment: e.Comment, Speed: e.Speed, SnapLen: o.Request.SnapLen,
		})
		if err != nil {
			return err
		}
		s.taps, s.sockets = append(s.taps, t), s.sockets[1:]
	}
	if s.files != nil {
		if err := s.files.Commit(); err != nil {
			return err
		}
	}
	s.begun = true
	return nil
}

// discard removes what there is of a capture that could not begin.
func (s *session) discard() error {
	if s.begun {
		return nil
	}
	var errs []error
	for _, e := range s.sockets {
		errs = append(errs, e.Socket.Close())
	}
	if s.file != nil {
		errs = append(errs, s.file.Close())
	}
	if s.files != nil {
		errs = append(errs, s.files.Discard())
	}
	if s.table != nil {
		errs = append(errs, s.table.Discard())
	}
	return errors.Join(errs...)
}

// run waits for the end.
func (s *session) run(ctx context.Context) Record {
	over := make(chan error, 1)
	go func() { over <- s.listen() }()
	var limit <-chan time.Time
	if d := s.options.Duration; d > 0 {
		timer := time.NewTimer(d)
		defer timer.Stop()
		limit = timer.C
	}
	listening := true
	select {
	case <-ctx.Done():
		s.record.Ended = "interrupted"
	case <-limit:
		s.record.Ended = "duration"
	case <-s.file.Done():
		s.record.Ended = "limit"
	case err := <-over:
		listening = false
		s.record.Ended = "lab is down"
		if !errors.Is(err, supervisor.ErrState) {
			s.err = err
		}
		s.file.NoMoreSecrets()
	}
	err := s.file.Close()
	s.source.Close()
	if listening {
		<-over // it is because we hung up
	}
	return s.finish(err)
}

// listen takes the lab's news until it ends.
func (s *session) listen() error {
	for {
		n, err := s.source.Next()
		if err != nil {
			return err
		}
		if n.Secrets != nil {
			if s.table != nil {
				s.table.Add(n.Secrets.SAs)
			}
			s.file.Learn(*n.Secrets)
			s.record.Sessions += strings.Count(string(n.Secrets.TLS), "SERVER_HANDSHAKE_TRAFFIC_SECRET ")
			s.record.SAs += len(n.Secrets.SAs)
		}
		if n.NoMore {
			s.file.NoMoreSecrets()
		}
		if n.Warning != "" {
			s.options.Note(n.Warning)
		}
	}
}

func (s *session) finish(err error) Record {
	r := &s.record
	r.Links, r.Ends, r.Unordered, r.Files = s.source.Links, len(s.taps), s.file.Unordered(), []string{}
	for _, t := range s.taps {
		stats, _ := t.Close() // it is closed, and its error told
		r.Captured += stats.Captured
		r.Dropped += stats.Dropped
	}
	if s.files != nil {
		err = errors.Join(err, s.files.Close())
		r.Files = s.files.Names()
	}
	if s.table != nil {
		err = errors.Join(err, s.table.Close())
	}
	s.err = errors.Join(s.err, err)
	return *r
}
