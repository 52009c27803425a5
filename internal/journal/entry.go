package journal

import (
	"fmt"
	"path/filepath"
	"strings"
	"unicode"
	"unicode/utf8"
)

// check refuses what no journal holds: a kind is a word of lower-case letters, digits and hyphens; a path is absolute,
// clean, at most 4,095 bytes (PATH_MAX without its zero) of UTF-8 without control characters.
func (e Entry) check() error {
	if e.Kind == "" || len(e.Kind) > 32 || strings.Trim(e.Kind, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
		return fmt.Errorf("kind %.40q is not a word of lower-case letters", e.Kind)
	}
	bad := ""
	switch {
	case !filepath.IsAbs(e.Path):
		bad = "is not absolute"
	case filepath.Clean(e.Path) != e.Path:
		bad = "is not clean"
	case len(e.Path) > 4095:
		bad = "is longer than 4095 bytes"
	case !utf8.ValidString(e.Path) || strings.ContainsFunc(e.Path, unicode.IsControl):
		bad = "has control characters or is not UTF-8"
	default:
		return nil
	}
	return fmt.Errorf("path %.200q %s", e.Path, bad)
}
