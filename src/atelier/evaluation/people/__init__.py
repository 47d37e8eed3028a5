"""What people say of pictures: a page that asks them blind, and what their votes come to."""
