package supervisor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	answerTimeout = 15 * time.Second // for a supervisor's greeting and its answers, but to Exec and Down
	listTimeout   = 5 * time.Second
	downAnswer    = downTimeout + time.Minute // for the answer to Down, and for the supervisor's end after it
	gonePoll      = 5 * time.Millisecond
)

// Client reaches one lab. Each request has a connection of its own, so that a Client holds nothing that would have to
// be closed and its methods may be called from any goroutine.
type Client struct {
	name  string // as given to Dial
	sock  socket
	owner uint32 // uid
	pid   int    // of the supervisor, 0 if it is not visible from here
	down  time.Duration
}

// Entry is a lab that is up.
type Entry struct {
	Name   string // for Dial: "NAME", or "UID/NAME" of another user's lab
	PID    int    // of the supervisor
	Status Status
	Err    error // why there is no Status
}

// List describes the labs that are up in the caller's network namespace: the caller's own, and everybody's for root.
// A supervisor that does not answer within 5 s has an Err.
func List(ctx context.Context) ([]Entry, error) {
	found, err := sockets()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	me, err := whoAmI()
	if err != nil {
		return nil, err
	}
	entries := make([]*Entry, len(found))
	var wg sync.WaitGroup
	for i, s := range found {
		wg.Go(func() {
			c, conn, err := reach(ctx, me, s)
			if err != nil {
				if !gone(err) && !errors.Is(err, ErrForeign) {
					entries[i] = &Entry{Name: s.name, Err: err}
				}
				return
			}
			conn.Close()
			e := Entry{Name: c.name, PID: c.pid}
			e.Status, e.Err = c.Status(ctx)
			if lost := (*LostError)(nil); !errors.As(e.Err, &lost) {
				entries[i] = &e
			}
		})
	}
	wg.Wait()
	var list []Entry
	for _, e := range entries {
		if e != nil {
			list = append(list, *e)
		}
	}
	slices.SortFunc(list, func(a, b Entry) int { return cmp.Compare(a.Name, b.Name) })
	return list, nil
}

// gone says whether the error is that of a socket nobody listens to any more.
func gone(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

// Dial finds the lab of that name which the caller owns, or, for root, with "UID/NAME" another user's. It is
// ErrNotFound if there is none and ErrForeign if somebody else's lab has the name.
func Dial(ctx context.Context, name string) (*Client, error) {
	uid, bare, explicit := strings.Cut(name, "/")
	if !explicit {
		bare = name
	}
	if err := CheckName(bare); err != nil {
		return nil, err
	}
	me, err := whoAmI()
	if err != nil {
		return nil, err
	}
	owner := me.self
	if explicit {
		n, err := strconv.ParseUint(uid, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("%w %q: %q is not a uid", ErrName, name, uid)
		}
		owner = uint32(n)
	}
	found, err := sockets()
	if err != nil {
		return nil, err
	}
	found = slices.DeleteFunc(found, func(s socket) bool { return s.name != bare })
	// Of two that are his own (one was made in a user namespace) the caller means that which bears his uid.
	slices.SortStableFunc(found, func(a, b socket) int {
		return cmp.Compare(distance(a.uid, owner), distance(b.uid, owner))
	})
	err = fmt.Errorf("lab %s: %w", name, ErrNotFound)
	for _, s := range found {
		c, conn, reachErr := reach(ctx, me, s)
		if reachErr != nil {
			if !gone(reachErr) {
				err = reachErr
			}
			continue
		}
		conn.Close()
		if c.owner == owner {
			return c, nil
		}
		if errors.Is(err, ErrNotFound) {
			err = fmt.Errorf("lab %s: %w; root reaches it as %s", name, ErrForeign, c.name)
		}
	}
	return nil, err
}

func distance(uid int, owner uint32) int {
	if uint32(uid) == owner {
		return 0
	}
	return 1
}

// reach connects to a socket and makes sure that it is the caller's own or, for root, anybody's. Nothing has been sent
// when it returns: what others bound learns nothing and gets no descriptor.
func reach(ctx context.Context, me identity, s socket) (*Client, *net.UnixConn, error) {
	conn, err := dialSocket(ctx, s.address())
	if err != nil {
		return nil, nil, fmt.Errorf("lab %s: %w", s.name, err)
	}
	cred, err := peer(conn)
	if err == nil && !me.is(cred.Uid) {
		conn.Close()
		if me.self != 0 || !me.known(cred.Uid) {
			return nil, nil, fmt.Errorf("lab %s: %w (%d)", s.name, ErrForeign, cred.Uid)
		}
		if conn, err = dialAs(ctx, s.address(), cred.Uid); err != nil {
			return nil, nil, fmt.Errorf("lab %s: %w", s.name, err)
		}
		owner := cred.Uid
		if cred, err = peer(conn); err == nil && cred.Uid != owner {
			err = ErrForeign // another took the name in between
		}
	}
	if err != nil {
		conn.Close()
		return nil, nil, fmt.Errorf("lab %s: %w", s.name, err)
	}
	c := &Client{name: s.name, sock: s, owner: cred.Uid, pid: int(cred.Pid), down: downAnswer}
	if c.owner != me.self {
		c.name = fmt.Sprintf("%d/%s", c.owner, s.name)
	}
	return c, conn, nil
}

// session is one request's connection.
type session struct {
	*Client
	conn *net.UnixConn
	log  *os.File // the supervisor's; may be nil
	ctx  context.Context
	free func() bool
}

// open connects, and takes the greeting. When ctx ends the connection fails.
func (c *Client) open(ctx context.Context) (*session, error) {
	me, err := whoAmI()
	if err != nil {
		return nil, err
	}
	now, conn, err := reach(ctx, me, c.sock)
	if err != nil {
		if gone(err) {
			return nil, &LostError{Lab: c.name}
		}
		return nil, err
	}
	if now.owner != c.owner {
		conn.Close()
		return nil, fmt.Errorf("lab %s: %w (%d)", c.name, ErrForeign, now.owner)
	}
	s := &session{Client: c, conn: conn, ctx: ctx}
	s.free = context.AfterFunc(ctx, func() { conn.SetDeadline(past()) })
	s.limit(answerTimeout)
	var hello greeting
	files, err := receive(conn, &hello, maxReply, 1)
	if err != nil {
		err = s.lost(err)
		s.close()
		return nil, err
	}
	if len(files) == 1 {
		s.log = files[0]
	}
	switch {
	case hello.Error != nil:
		err = fmt.Errorf("lab %s: %w", c.name, fromWire(*hello.Error))
	case hello.Version != protocolVersion:
		err = fmt.Errorf("lab %s: %w: its supervisor speaks version %d, this program %d; use the program that started it",
			c.name, ErrProtocol, hello.Version, protocolVersion)
	}
	if err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// limit sets the time that is left for what comes; 0: any. It never revives a connection whose context has ended.
func (s *session) limit(d time.Duration) {
	var t time.Time
	if d > 0 {
		t = time.Now().Add(d)
	}
	s.conn.SetDeadline(t)
	if s.ctx.Err() != nil {
		s.conn.SetDeadline(past())
	}
}

// past is a deadline that has passed.
func past() time.Time { return time.Unix(1, 0) }

func (s *session) close() {
	s.free()
	s.conn.Close()
	if s.log != nil {
		s.log.Close()
	}
}

// lost says what it means that the connection failed.
func (s *session) lost(err error) error {
	switch {
	case s.ctx.Err() != nil:
		return context.Cause(s.ctx)
	case gone(err):
		e := &LostError{Lab: s.name}
		if s.log != nil {
			e.Last, _ = tailLog(s.log, logTail) // nothing to say is no further error
		}
		return e
	case errors.Is(err, os.ErrDeadlineExceeded):
		return s.mute("does not answer")
	}
	return fmt.Errorf("lab %s: %w", s.name, err)
}

// mute is the error of a supervisor that does not do its part, and what would help.
func (c *Client) mute(what string) error {
	process, ways := "its supervisor", ""
	if c.pid > 0 {
		process = fmt.Sprintf("its supervisor (process %d)", c.pid)
		ways = fmt.Sprintf("; if it was stopped, kill -CONT %d lets it go on; kill -KILL %d ends it, and the lab with it", c.pid, c.pid)
	}
	return fmt.Errorf("lab %s: %s %s%s: %w", c.name, process, what, ways, ErrMute)
}

// ask sends the request and takes the first reply.
func (s *session) ask(q request, wait time.Duration, files ...*os.File) (reply, error) {
	q.Version = protocolVersion
	if err := send(s.conn, q, maxRequest, files...); err != nil {
		return reply{}, s.lost(err)
	}
	s.limit(wait)
	return s.next()
}

// next takes a reply, and its errors.
func (s *session) next() (reply, error) {
	var r reply
	if _, err := receive(s.conn, &r, maxReply, 0); err != nil {
		return r, s.lost(err)
	}
	return r, s.refusal(r)
}

// Status describes the lab.
func (c *Client) Status(ctx context.Context) (Status, error) {
	s, err := c.open(ctx)
	if err != nil {
		return Status{}, err
	}
	defer s.close()
	r, err := s.ask(request{Op: opStatus}, answerTimeout)
	if err != nil {
		return Status{}, err
	}
	if r.Status == nil {
		return Status{}, fmt.Errorf("lab %s: %w: an answer without a status", c.name, ErrProtocol)
	}
	r.Status.UID = int(c.owner)
	return *r.Status, nil
}

// SetLink changes what a link does to packets, as Lab.SetLink.
func (c *Client) SetLink(ctx context.Context, link, from string, change []string) (LinkStatus, error) {
	s, err := c.open(ctx)
	if err != nil {
		return LinkStatus{}, err
	}
	defer s.close()
	r, err := s.ask(request{Op: opLink, Link: &linkRequest{Link: link, From: from, Change: change}}, answerTimeout)
	if err != nil {
		return LinkStatus{}, err
	}
	if r.Link == nil {
		return LinkStatus{}, fmt.Errorf("lab %s: %w: an answer without a link", c.name, ErrProtocol)
	}
	return *r.Link, nil
}

// Log gives the last 16 KiB of what the supervisor and its children printed.
func (c *Client) Log(ctx context.Context) (string, error) {
	s, err := c.open(ctx)
	if err != nil {
		return "", err
	}
	defer s.close()
	if s.log == nil {
		return "", nil
	}
	return tailLog(s.log, logTail)
}

// Down has the lab taken down and returns all errors of that, when nothing of the supervisor is left. A lab that is
// gone already is no error, nor is one that somebody else takes down at the same time. If ctx ends, the lab goes down
// all the same. A supervisor that does not answer, or does not end, in two minutes is ErrMute.
func (c *Client) Down(ctx context.Context) error {
	s, err := c.open(ctx)
	if lost := (*LostError)(nil); errors.As(err, &lost) {
		return c.waitGone(ctx)
	}
	if err != nil {
		return err
	}
	defer s.close()
	_, err = s.ask(request{Op: opDown}, c.down)
	if ctx.Err() != nil || errors.Is(err, ErrMute) {
		return err
	}
	return errors.Join(err, c.waitGone(ctx))
}

// waitGone waits for the socket to be closed, which is the last that a supervisor does.
func (c *Client) waitGone(ctx context.Context) error {
	tick := time.NewTicker(gonePoll)
	defer tick.Stop()
	late := time.After(c.down)
	for {
		found, err := sockets()
		if err != nil {
			return err
		}
		if !slices.Contains(found, c.sock) {
			return nil
		}
		select {
		case <-tick.C:
		case <-late:
			return c.mute("has taken the lab down and does not end")
		case <-ctx.Done():
			return fmt.Errorf("lab %s: it is down, its supervisor has not ended: %w", c.name, context.Cause(ctx))
		}
	}
}
