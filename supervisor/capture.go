package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"pqlab/capture"
)

// CaptureRequest asks for what passes links, at both ends of each.
type CaptureRequest struct {
	Links   []string `json:"links,omitempty"` // none means all
	SnapLen int      `json:"snaplen,omitempty"`
	TLS     bool     `json:"tls,omitempty"`   // the secrets of the exchanges' TLS sessions
	SAs     bool     `json:"sas,omitempty"`   // the keys of SAs
	Rekey   bool     `json:"rekey,omitempty"` // replace the keys of the tunnels that pass the links when all is ready
}

// Capture is what is there to capture.
type Capture struct {
	Comment string       `json:"comment"` // on the lab
	Links   int          `json:"links"`
	Ends    []CaptureEnd `json:"ends"`
}

// CaptureEnd is one end of a link. It takes packets from when it was made, whoever reads them.
type CaptureEnd struct {
	Name        string   `json:"name"`
	Description string   `json:"description"`
	Comment     string   `json:"comment"`
	Speed       uint64   `json:"bits_per_second,omitempty"`
	Socket      *os.File `json:"-"` // for capture.Attach; the receiver's to close
}

// close closes the sockets.
func (c *Capture) close() {
	for _, e := range c.Ends {
		if e.Socket != nil {
			e.Socket.Close()
		}
	}
}

// CaptureNews is what a lab tells while somebody captures.
type CaptureNews struct {
	Secrets *capture.Secrets `json:"secrets,omitempty"`
	NoMore  bool             `json:"no_more,omitempty"` // no further secrets will come
	Warning string           `json:"warning,omitempty"`
}

// captureSockets is how many descriptors one message carries; the kernel takes 253 (SCM_MAX_FD).
const captureSockets = 200

// capture gives a client what its request asks for, and goes on telling it news until it goes away or the lab ends.
func (s *server) capture(c *net.UnixConn, q *CaptureRequest) {
	if q == nil {
		refuse(c, fmt.Errorf("%w: capture without a request", ErrProtocol))
		return
	}
	lab, err := s.beginExec()
	if err != nil {
		refuse(c, err)
		return
	}
	defer s.execs.Done()
	ctx, cancel := context.WithCancel(s.exec)
	defer cancel()
	news := make(chan CaptureNews)
	got, err := lab.Capture(ctx, *q, func(n CaptureNews) {
		select {
		case news <- n:
		case <-ctx.Done():
		}
	})
	if err != nil {
		refuse(c, err)
		return
	}
	defer got.close()
	if err := sendCapture(c, got); err != nil {
		return
	}
	got.close() // they are the client's
	c.SetDeadline(time.Time{})
	gone := make(chan struct{})
	s.conns.Go(func() {
		defer close(gone)
		io.Copy(io.Discard, c) // nothing comes but the end
	})
	for {
		select {
		case n := <-news:
			c.SetWriteDeadline(time.Now().Add(requestTimeout))
			if err := send(c, reply{News: &n}, maxReply); err != nil {
				c.Close()
				<-gone
				return
			}
		case <-gone:
			return
		case <-s.exec.Done():
			refuse(c, fmt.Errorf("%w: it is taken down", ErrState))
			c.Close()
			<-gone
			return
		}
	}
}

// sendCapture sends the ends in as many messages as their sockets need.
func sendCapture(c *net.UnixConn, all Capture) error {
	for first := true; first || len(all.Ends) > 0; first = false {
		part := all
		part.Ends = all.Ends[:min(len(all.Ends), captureSockets)]
		all.Ends = all.Ends[len(part.Ends):]
		var files []*os.File
		for _, e := range part.Ends {
			files = append(files, e.Socket)
		}
		c.SetWriteDeadline(time.Now().Add(requestTimeout))
		if err := send(c, reply{Capture: &part, More: len(all.Ends) > 0}, maxReply, files...); err != nil {
			return err
		}
	}
	return nil
}

// Recording is a capture that a client makes of a lab.
type Recording struct {
	Capture
	session *session
	once    sync.Once
}

// Capture begins to capture links. A link that is not there is ErrNoLink. The caller closes the sockets and the recording.
func (c *Client) Capture(ctx context.Context, q CaptureRequest) (_ *Recording, err error) {
	s, err := c.open(ctx)
	if err != nil {
		return nil, err
	}
	r := &Recording{session: s}
	defer func() {
		if err != nil {
			r.close()
			s.close()
		}
	}()
	if err := send(s.conn, request{Version: protocolVersion, Op: opCapture, Capture: &q}, maxRequest); err != nil {
		return nil, s.lost(err)
	}
	for more := true; more; {
		s.limit(answerTimeout)
		var part reply
		files, err := receive(s.conn, &part, maxReply, captureSockets)
		if err != nil {
			return nil, s.lost(err)
		}
		if err := s.refusal(part); err != nil {
			closeAll(files)
			return nil, err
		}
		if part.Capture == nil || len(part.Capture.Ends) != len(files) {
			closeAll(files)
			return nil, fmt.Errorf("lab %s: %w: %d descriptors for a capture", c.name, ErrProtocol, len(files))
		}
		for i := range files {
			part.Capture.Ends[i].Socket = files[i]
		}
		r.Comment, r.Links, r.Ends, more = part.Capture.Comment, part.Capture.Links, append(r.Ends, part.Capture.Ends...), part.More
	}
	s.limit(0)
	return r, nil
}

// Next waits for news. It is ErrState when the lab is taken down, and a *LostError when it is gone.
func (r *Recording) Next() (CaptureNews, error) {
	answer, err := r.session.next()
	if err != nil {
		return CaptureNews{}, err
	}
	if answer.News == nil {
		return CaptureNews{}, fmt.Errorf("lab %s: %w: an answer without news", r.session.name, ErrProtocol)
	}
	return *answer.News, nil
}

// Close ends the news. The sockets stay.
func (r *Recording) Close() { r.once.Do(r.session.close) }

// refusal is the errors of a reply.
func (s *session) refusal(r reply) error {
	var errs []error
	for _, w := range r.Errors {
		errs = append(errs, fmt.Errorf("lab %s: %w", s.name, fromWire(w)))
	}
	return errors.Join(errs...)
}
