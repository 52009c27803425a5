package lab

import (
	"context"
	"errors"
	"io/fs"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"pqlab/ipsec/strongswan"
	"pqlab/probe"
)

// Only what the machine lacks is told as that. What nobody knows, because a probe failed, is an error of its own.
func TestStrongswanCannot(t *testing.T) {
	t.Parallel()
	there := func() error { return nil }
	missing := func() error {
		return &probe.NotSupported{What: "esp", Needs: "CONFIG_X", Instead: "none", Err: unix.ENOENT}
	}
	failed := func() error { return &probe.Failure{What: "esp", How: "tried", Err: context.DeadlineExceeded} }
	for name, tt := range map[string]struct {
		probes   []func() error
		lacks    bool
		cause    error
		way, not string // of the message
	}{
		"all there":       {[]func() error{there, there}, false, nil, "", ""},
		"missing":         {[]func() error{there, missing}, true, unix.ENOENT, "pqlab vm --", "none"},
		"failed":          {[]func() error{failed, there}, false, context.DeadlineExceeded, "--keying pqlab", ""},
		"failed, missing": {[]func() error{failed, missing}, true, unix.ENOENT, "pqlab vm --", ""},
	} {
		err := kernelForStrongswan(tt.probes)
		var lacks *probe.NotSupported
		if errors.As(err, &lacks) != tt.lacks || errors.Is(err, errors.ErrUnsupported) != tt.lacks || !errors.Is(err, tt.cause) || (err == nil) != (tt.cause == nil) {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if err == nil {
			continue
		}
		if text := err.Error(); !strings.Contains(text, "keying strongswan") || !strings.Contains(text, "esp") || !strings.Contains(text, tt.way) ||
			tt.not != "" && strings.Contains(text, tt.not) {
			t.Errorf("%s: %s", name, text)
		}
		if lacks != nil && lacks.Needs != "CONFIG_X" {
			t.Errorf("%s: %+v", name, lacks)
		}
	}
}

// That strongSwan is not here is a lack; that nobody could look is none.
func TestStrongswanNotFound(t *testing.T) {
	t.Parallel()
	var lacks *probe.NotSupported
	if err := notFound(strongswan.ErrMissing); !errors.As(err, &lacks) || !errors.Is(err, strongswan.ErrMissing) {
		t.Error(err)
	}
	if err := notFound(fs.ErrPermission); errors.As(err, &lacks) || errors.Is(err, errors.ErrUnsupported) || !errors.Is(err, fs.ErrPermission) {
		t.Error(err)
	}
}
