'use strict';
// Does nothing: shows whether a test fails because of brood, or because something is preloaded.
