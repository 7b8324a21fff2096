#![no_main]

novcomet_fuzz::target!(bayeux);
