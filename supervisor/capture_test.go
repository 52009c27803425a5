package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"
)

// A capture gets every socket in its place, also where there are more than a message carries, then the news, and ends for
// the lab when its client closes it.
func TestCapture(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 1, captureSockets, 2*captureSockets + 3} {
		marks := t.TempDir()
		s := serve(t, &fakeLab{marks: marks})
		q := CaptureRequest{SnapLen: 96, TLS: true}
		for i := range n {
			q.Links = append(q.Links, fmt.Sprintf("l%d", i))
		}
		r, err := dial(t, s.name).Capture(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		if r.Comment != fmt.Sprint(q) || r.Links != n || len(r.Ends) != n {
			t.Fatalf("%d links, %d ends of %d, comment %.80s", r.Links, len(r.Ends), n, r.Comment)
		}
		for i, e := range r.Ends {
			text, err := io.ReadAll(e.Socket)
			if err != nil || string(text) != q.Links[i] || e.Name != q.Links[i] || e.Speed != 10 {
				t.Fatalf("end %d: %q, %v, %+v", i, text, err, e)
			}
			e.Socket.Close()
		}
		news, err := r.Next()
		if err != nil || news.Secrets == nil || string(news.Secrets.TLS) != "secret\n" {
			t.Fatalf("news %v, %v", news, err)
		}
		r.Close()
		r.Close()
		for end := time.Now().Add(2 * time.Minute); !marked(marks, "captured"); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("the lab goes on capturing for a client that is gone")
			}
		}
	}
}

func TestCaptureRefused(t *testing.T) {
	t.Parallel()
	s := serve(t, &fakeLab{})
	if _, err := dial(t, s.name).Capture(t.Context(), CaptureRequest{Links: []string{"l1", "none"}}); !errors.Is(err, ErrNoLink) {
		t.Errorf("a link that is not there: %v", err)
	}
}

// A lab that is taken down says so to those who capture it.
func TestCaptureOfALabThatGoesDown(t *testing.T) {
	t.Parallel()
	s := serve(t, &fakeLab{})
	c := dial(t, s.name)
	r, err := c.Capture(t.Context(), CaptureRequest{Links: []string{"l1"}})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	r.Ends[0].Socket.Close()
	down := make(chan error, 1)
	go func() { down <- c.Down(context.WithoutCancel(t.Context())) }()
	for {
		if _, err = r.Next(); err != nil {
			break
		}
	}
	if !errors.Is(err, ErrState) {
		t.Errorf("%v", err)
	}
	if err := <-down; err != nil {
		t.Error(err)
	}
}
